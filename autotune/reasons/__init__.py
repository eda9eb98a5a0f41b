"""Why a plan is not the one to take: it breaks a rule, does not fit, or takes longer than another.

explain(task, plan, winner).text   # "14 % slower: data-parallel all-reduce exposed 210 ms longer, ..."
"""

from towtank.autotune.reasons.explain import explain, reason_between, reason_to_mapping
from towtank.autotune.reasons.records import Reason, Verdict

__all__ = ["Reason", "Verdict", "explain", "reason_between", "reason_to_mapping"]
