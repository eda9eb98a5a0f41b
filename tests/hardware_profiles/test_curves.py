"""Readings of the measured curves: hand-worked values, limits and refusals."""

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.hardware_profiles.curves import (
    load_curves,
    measured_devices,
    network_bus_bandwidth_points,
)
from towtank.hardware_profiles.curves.attention import published_parallel_heads
from towtank.hardware_profiles.curves.collectives import CollectiveCurve, bus_factor
from towtank.hardware_profiles.curves.experts import layer_flop, roofline_s
from towtank.hardware_profiles.curves.grid import Grid
from towtank.hardware_profiles.curves.left_out import KernelRow, predicted_s, quantile
from towtank.hardware_profiles.curves.matmul import MatmulCurve, RooflineModel
from towtank.hardware_profiles.errors import ProfileError, UnknownProfile

DEVICES = measured_devices()
MATMULS = [(device, precision) for device in DEVICES for precision in load_curves(device).matmul]


def test_a_grid_is_bilinear_in_log2():
    grid = Grid.of([[1, 4], [1, 2, 8]], [0.0, 1.0, 2.0, 10.0, 11.0, 12.0])
    # (2, 4): half of the way in log2 on both axes, between 1, 2, 11 and 12.
    assert grid.at((2, 4)) == pytest.approx((1.0 + 2.0 + 11.0 + 12.0) / 4)
    assert grid.at((4, 8)) == 12.0
    assert grid.at((100, 0.01)) == 10.0


def test_a_grid_says_when_it_answers_with_an_edge():
    grid = Grid.of([[1, 4], [2]], [0.0, 1.0])
    assert not grid.is_clamped((4, 700))  # an axis of one point is constant, not exceeded
    assert grid.is_clamped((5, 2))


@given(
    sizes=st.tuples(*[st.integers(1, 3)] * 3),
    where=st.tuples(*[st.floats(0.1, 40)] * 3),
    weights=st.tuples(*[st.floats(-5, 5)] * 3),
)
def test_three_axes_reproduce_a_function_linear_in_log2(sizes, where, weights):
    axes = [[2.0 ** (i + 1) for i in range(size)] for size in sizes]

    def plane(point):
        return sum(weight * log2(x) for weight, x in zip(weights, point, strict=True))

    grid = Grid.of(axes, [plane((a, b, c)) for a in axes[0] for b in axes[1] for c in axes[2]])
    inside = [min(max(x, axis[0]), axis[-1]) for x, axis in zip(where, axes, strict=True)]
    assert grid.at(where) == pytest.approx(plane(inside), abs=1e-9)


@pytest.mark.parametrize("axes, values", [([[1, 2]], [1.0]), ([[2, 1]], [1.0, 2.0]), ([[0, 1]], [1.0, 2.0])])
def test_a_grid_refuses_what_does_not_fit(axes, values):
    with pytest.raises(ValueError, match=r"a grid of|an axis of a grid"):
        Grid.of(axes, values)


def model(**changes: float) -> RooflineModel:
    figures = {
        "reference_peak_flop_per_s": 1e14,
        "memory_bytes_per_s": 1e12,
        "multiprocessors": 100,
        "element_bytes": 2.0,
        "launch_floor_s": 2e-6,
        "tile_rows": 64,
        "wave_exponent": 0.0,
    }
    return RooflineModel(**(figures | changes))  # type: ignore[arg-type]


def test_the_roofline_of_a_compute_bound_multiply():
    # 2 x 4096^3 / 1e14 = 1.374389 ms, and 2 us of launch
    assert model().time_s(4096, 4096, 4096) == pytest.approx(1.374389e-3 + 2e-6, rel=1e-6)


def test_the_roofline_of_a_memory_bound_multiply():
    # 2 (128 x 8192 + 8192 x 256 + 128 x 256) bytes at 1e12 bytes/s = 6.357 us; compute is 5.37 us
    assert model().time_s(128, 256, 8192) == pytest.approx(6.356992e-6 + 2e-6, rel=1e-6)


def test_one_row_beyond_a_tile_costs_a_tile():
    assert model().rows_computed(1) == 128
    assert model().rows_computed(129) == 192
    assert model().time_s(129, 4096, 4096) == model().time_s(192, 4096, 4096)


def test_wave_quantization_counts_whole_waves():
    # 1280 x 2560 in tiles of 128 x 256: 100 tiles are one wave of 100 multiprocessors, 110 tiles are two.
    full, spilt = model(wave_exponent=1.0), model(wave_exponent=1.0)
    assert full._quantization(1280, 2560) == pytest.approx(1.0)
    # 220 tiles of 128 x 128 in three waves waste less, even at 0.9 of the rate.
    three_waves = 3 * 128 * 128 * 100 / 0.9
    assert spilt._quantization(1408, 2560) == pytest.approx(three_waves / (1408 * 2560))


def test_a_flat_efficiency_is_read_back():
    axes = ([128, 1024], [256, 1024], [256, 1024])
    curve = MatmulCurve.from_rates("bf16", model(launch_floor_s=0.0), axes, [2.5e13] * 8)
    assert curve.efficiency(1024, 1024, 1024) == pytest.approx(0.25)
    assert curve.latency_s(1024, 1024, 1024) == pytest.approx(2 * 1024**3 / 2.5e13)
    assert curve.flop_per_s(128, 1024, 256) == pytest.approx(2.5e13)


@pytest.mark.parametrize("device, precision", MATMULS)
def test_below_128_rows_the_efficiency_is_linear(device, precision):
    curve = load_curves(device).matmul[precision]
    assert curve.latency_s(16, 4096, 4096) == curve.latency_s(128, 4096, 4096)
    assert curve.efficiency(16, 4096, 4096) == pytest.approx(curve.efficiency(128, 4096, 4096) / 8)
    assert curve.is_clamped(16, 4096, 4096) and not curve.is_clamped(2048, 4096, 4096)


sizes = st.integers(min_value=1, max_value=200_000)


@given(shape=st.tuples(sizes, sizes, sizes), which=st.sampled_from(MATMULS))
def test_a_matmul_never_beats_the_peak(shape, which):
    curve = load_curves(which[0]).matmul[which[1]]
    assert 0.0 < curve.efficiency(*shape) <= 1.0 + 1e-12
    assert curve.latency_s(*shape) >= 1e-6


def test_a_large_bf16_multiply_on_a100_is_near_the_published_one():
    # ml-engineering MAMF table: 271.2 TFLOP/s, best of a sweep on A100 SXM; short bursts reach a tenth more.
    rate = load_curves("a100-80gb-sxm").matmul["bf16"].flop_per_s(8192, 8192, 8192)
    assert 240e12 < rate < 300e12


@given(
    batch=st.integers(1, 64),
    sequence=st.integers(1, 131072),
    kv_heads=st.sampled_from([1, 2, 8]),
    group=st.sampled_from([1, 4]),
    head_dim=st.sampled_from([64, 80, 128, 256]),
    device=st.sampled_from(DEVICES),
)
def test_attention_stays_below_the_peak(batch, sequence, kv_heads, group, head_dim, device):
    for curve in load_curves(device).attention.values():
        shape = (batch, sequence, kv_heads * group, kv_heads, head_dim)
        assert 0.0 < curve.forward_efficiency(*shape) <= 1.0
        assert 0.0 < curve.backward_efficiency(*shape) <= 1.05


@pytest.mark.parametrize(
    "device, head_dim, sequence, teraflops",
    [("h100-80gb-sxm", 128, 2048, 265), ("h100-80gb-sxm", 64, 8192, 273), ("a100-80gb-sxm", 128, 4096, 173)],
)
def test_flash2_forward_and_backward_together_give_the_published_rate(device, head_dim, sequence, teraflops):
    # FlashAttention-2 figures, causal forward+backward: 3.5 x forward FLOP over both times.
    heads = published_parallel_heads(sequence, head_dim)
    curve = load_curves(device).attention["bf16"]
    forward = curve.forward_flop_per_s(1, sequence, heads, heads, head_dim, "flash2")
    combined = 3.5 * forward / (1.0 + curve.backward_ratio(sequence, head_dim, "flash2"))
    assert combined == pytest.approx(teraflops * 1e12, rel=0.01)


def test_best_is_no_slower_than_flash2():
    curve = load_curves("a100-80gb-sxm").attention["bf16"]
    for sequence in (512, 2048, 8192):
        shape = (4, sequence, 16, 16, 128)
        assert curve.forward_efficiency(*shape) >= curve.forward_efficiency(*shape, "flash2")


@pytest.mark.parametrize(
    "head_dim, sequence, teraflops", [(128, 2048, 484), (128, 16384, 539), (64, 8192, 379)]
)
def test_best_on_hopper_is_the_kernel_of_training(head_dim, sequence, teraflops):
    # cuDNN, causal forward: FlashAttention-3 (arXiv 2407.08608), figure 5; the serving kernels of the tables reach
    # up to 713 TFLOP/s and have no backward pass.
    heads = published_parallel_heads(sequence, head_dim)
    curve = load_curves("h100-80gb-sxm").attention["bf16"]
    assert curve.forward_flop_per_s(1, sequence, heads, heads, head_dim) == pytest.approx(
        teraflops * 1e12, rel=0.01
    )


def test_causal_backward_on_hopper_follows_the_published_one_without_a_mask():
    # cuDNN without a mask, 16k tokens: forward 595, backward 516 TFLOP/s, so 2.5 x 595 / 516 = 2.88 times as long;
    # a causal mask takes FlashAttention-2 from 2.5 x 370 / 322 = 2.87 to 2.57.
    curve = load_curves("h100-80gb-sxm").attention["bf16"]
    assert curve.backward_ratio(16384, 128) == pytest.approx(2.88 * 2.57 / 2.87, rel=0.01)


def test_an_implementation_without_figures_is_refused():
    with pytest.raises(ProfileError, match=r"no measured flash2 attention.*published_attention\.csv"):
        load_curves("b200").attention["bf16"].forward_efficiency(1, 4096, 32, 32, 128, "flash2")


def test_b200_attention_is_that_of_gb200_scaled():
    b200, gb200 = (load_curves(name).attention["bf16"] for name in ("b200", "gb200"))
    shape = (1, 4096, 32, 8, 128)
    assert b200.forward_efficiency(*shape) == pytest.approx(gb200.forward_efficiency(*shape))
    assert b200.forward_flop_per_s(*shape) == pytest.approx(0.9 * gb200.forward_flop_per_s(*shape))


def test_the_bus_factors():
    assert bus_factor("all_reduce", 8) == 1.75
    assert bus_factor("all_gather", 4) == 0.75


def ring() -> CollectiveCurve:
    sizes = [[1024, 1048576]]
    slow, fast = Grid.of(sizes, [log2(1e-5), log2(1e-4)]), Grid.of(sizes, [log2(1e-5), log2(2e-4)])
    return CollectiveCurve({"all_gather": {4: slow, 8: fast}}, 1048576.0)


def test_collective_times_by_hand():
    curve = ring()
    assert curve.time_s("all_gather", 4, 1048576) == pytest.approx(1e-4)
    assert curve.time_s("all_gather", 4, 32768) == pytest.approx((1e-5 * 1e-4) ** 0.5)  # middle in log-log
    assert curve.time_s("all_gather", 4, 16) == pytest.approx(1e-5)  # latency
    assert curve.time_s("all_gather", 4, 4 * 1048576) == pytest.approx(4e-4)  # bandwidth
    assert curve.bus_bandwidth("all_gather", 8, 1048576) == pytest.approx(0.875 * 1048576 / 2e-4)
    assert curve.time_s("all_gather", 1, 1048576) == 0.0


def test_between_device_counts_the_bus_bandwidth_lies_between():
    curve = ring()
    low, high = (curve.bus_bandwidth("all_gather", n, 1048576) for n in (8, 4))
    assert low < curve.bus_bandwidth("all_gather", 6, 1048576) < high
    assert curve.time_s("all_gather", 2, 1048576) == pytest.approx(0.5 * 1048576 / high)
    assert curve.is_clamped("all_gather", 2, 4096) and not curve.is_clamped("all_gather", 6, 4096)


def test_an_unmeasured_operation_is_refused():
    with pytest.raises(ProfileError, match="choose one of"):
        ring().time_s("broadcast", 4, 1e6)  # type: ignore[arg-type]


@given(
    device=st.sampled_from([name for name in DEVICES if name != "l40s"]),
    operation=st.sampled_from(["all_gather", "all_reduce", "reduce_scatter", "all_to_all"]),
    count=st.integers(2, 9),
    message=st.floats(1, 1e11),
    factor=st.floats(1, 100),
)
def test_a_bigger_message_takes_no_less_time(device, operation, count, message, factor):
    curve = load_curves(device).collectives
    assert curve is not None
    smaller, bigger = (curve.time_s(operation, count, size) for size in (message, message * factor))
    assert bigger >= smaller * (1 - 1e-9)


def test_published_bus_bandwidths_of_large_messages():
    # nccl-tests at 512 MiB on 8 devices, GB/s
    for device, operation, gigabytes in (
        ("a100-80gb-sxm", "all_reduce", 222),
        ("h100-80gb-sxm", "all_gather", 335),
        ("b200", "all_to_all", 563),
    ):
        curve = load_curves(device).collectives
        assert curve is not None
        assert curve.bus_bandwidth(operation, 8, 2**29) == pytest.approx(gigabytes * 1e9, rel=0.01)


def test_l40s_has_no_collectives():
    assert load_curves("l40s").collectives is None


def test_expert_flop_counts_three_multiplies():
    assert layer_flop(1000, 4096, 1536, 8) == 2 * 3 * 1000 * 8 * 4096 * 1536
    assert layer_flop(1000, 4096, 1536, 8, matrices=2) == 2 * 2 * 1000 * 8 * 4096 * 1536


def test_the_roofline_of_an_expert_layer():
    # compute: 6 x 8192 copies x 4096 x 1536 / 1e14 = 3.09238 ms, above the weights; passes at 1e12 bytes/s:
    # 2 (8192 (4 x 4096 + 3 x 1536) + 1024 x 4096) = 352.32 MB; 20 us of launches
    assert roofline_s(1e14, 1e12, 2.0, 8192, 4096, 1536, 16, 1024) == pytest.approx(
        3.092376e-3 + 0.352322e-3 + 2e-5, rel=1e-5
    )
    # 16 copies: weights 2 x 2 x 16 x 4096 x 1536 bytes without a gate; 2 (16 (16384 + 3072) + 16 x 4096)
    assert roofline_s(1e14, 1e12, 2.0, 16, 4096, 1536, 16, 16, matrices=2) == pytest.approx(
        402.653e-6 + 0.753664e-6 + 2e-5, rel=1e-5
    )


def test_expert_layers_grow_efficient_with_tokens():
    curve = load_curves("h100-80gb-sxm").experts["bf16"]
    few, many = (curve.efficiency(tokens, 4096, 1536, 8, 128) for tokens in (256, 16384))
    assert 0.0 < few < many <= 1.0
    even = curve.latency_s(16384, 4096, 1536, 8, 16, expert_parallel=8)
    assert curve.latency_s(16384, 4096, 1536, 8, 16, "power_law", expert_parallel=8) > even
    assert curve.is_clamped(1, 4096, 1536, 1, 128)


@pytest.mark.parametrize("device", [name for name in DEVICES if load_curves(name).experts])
@pytest.mark.parametrize("hidden, inter", [(4096, 14336), (4096, 1536), (7168, 2048)])
def test_a_single_expert_of_degree_1_is_about_two_dense_multiplies(device, hidden, inter):
    # no layer with one expert on the rank was measured at degree 1: what the two grids say of it must still be sane
    curves = load_curves(device)
    dense = sum(curves.matmul["bf16"].latency_s(4096, *nk) for nk in ((2 * inter, hidden), (hidden, inter)))
    layer = curves.experts["bf16"].latency_s(4096, hidden, inter, 1, 1)
    assert 0.85 * dense < layer < 2.5 * dense  # expert layers are known to 15 %


def test_a_wrong_device_name_gets_the_nearest():
    with pytest.raises(UnknownProfile, match="did you mean 'h100-80gb-sxm'"):
        load_curves("h100-80gb-smx")


def test_a_private_folder_comes_first(tmp_path):
    folder = tmp_path / "measurements"
    folder.mkdir()
    (folder / "devices.csv").write_text(
        "device,multiprocessors,memory_bytes_per_s,bf16,fp8,nvfp4,provenance,attention_as,"
        "published_attention_as,collectives,note\nmine,10,1e12,1e14,,,measurement,mine,mine,no,own\n"
    )
    (folder / "surfaces.csv").write_text(
        "device,kind,precision,tile_rows,wave_exponent,launch_floor_s,grid_points,left_out_rows,"
        "left_out_median,left_out_p90\nmine,matmul,bf16,1,0.0,1e-6,4,0,0,0\n"
    )
    (folder / "mine.matmul.csv").write_text("precision,m,n,256,512\nbf16,128,256,10,20\nbf16,256,256,20,40\n")
    (folder / "memory_fraction.csv").write_text("device,fraction,achieved_bytes_per_s,method,source\n")
    curves = load_curves("mine", (tmp_path,))
    assert curves.matmul["bf16"].flop_per_s(256, 256, 512) == pytest.approx(40e12)
    assert curves.memory_fraction is None
    assert load_curves("b200", (tmp_path,)).device == "b200"


def test_provenance_names_the_relative_and_the_error():
    curves = load_curves("a100-80gb-sxm")
    assert "shapes left out" in curves.provenance
    assert curves.provenance_for("v100-32gb-sxm").startswith(
        "v100-32gb-sxm: not measured; shape dependence of a100-80gb-sxm"
    )


def test_network_points():
    points = network_bus_bandwidth_points("Hugging Face H100", "all_reduce", nodes=64)
    assert len(points) == 1
    assert points[0].num_devices == 512 and points[0].convention == "unstated"
    assert points[0].bandwidth_bytes_per_s == pytest.approx(33e9, rel=0.03)
    assert {point.system for point in network_bus_bandwidth_points("V100")} == {"V100 node"}


def test_left_out_quantiles_by_hand():
    assert quantile([4.0, 1.0, 2.0, 3.0], 0.5) == 2.5
    assert quantile([0.0, 10.0], 0.9) == pytest.approx(9.0)
    assert quantile([7.0], 0.9) == 7.0


def test_a_kernel_row_is_predicted_by_its_curve():
    curves = load_curves("h100-80gb-sxm")
    layer = KernelRow("experts", "h100-80gb-sxm", "bf16", "balanced", (4096, 2048, 768, 8, 128, 2, 4, 3), 1.0)
    assert predicted_s(layer) == curves.experts["bf16"].latency_s(
        1024, 2048, 384, 8, 32, expert_parallel=4, matrices=3
    )
    head = KernelRow("attention", "h100-80gb-sxm", "bf16", "", (2, 4096, 32, 8, 128), 1.0)
    rate = curves.attention["bf16"].table_flop_per_s(2, 4096, 32, 8, 128)
    assert predicted_s(head) == 2 * 2 * 32 * 4096**2 * 128 / rate
    assert curves.collectives is not None
    ring = KernelRow("collectives", "h100-80gb-sxm", "int8", "all_gather", (8, 2**20), 1.0)
    assert predicted_s(ring) == curves.collectives.time_s("all_gather", 8, 2**20)
