import os

import torch

# before triton is imported anywhere: there is no GPU in tests, so its kernels are interpreted
os.environ["TRITON_INTERPRET"] = "1"
# the threads of tiny operations wait for each other more than they work, and tests run beside each other
torch.set_num_threads(1)
