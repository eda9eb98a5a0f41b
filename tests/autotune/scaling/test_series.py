"""What stays and what grows with the devices."""

import pytest

from towtank.autotune.errors import TuningError
from towtank.autotune.scaling.series import grown, scale_points
from towtank.simulator.models.count import parameters
from towtank.simulator.models.load import load_model
from towtank.simulator.models.records import Attention

MODEL = load_model("gpt-5b")
DEVICES = (64, 128, 512)


def test_strong_keeps_model_and_batch() -> None:
    points = scale_points("strong", [MODEL], DEVICES, 256)
    assert [(point.devices, point.model, point.global_batch) for point in points] == [
        (64, MODEL, 256),
        (128, MODEL, 256),
        (512, MODEL, 256),
    ]


def test_weak_in_batch_grows_the_batch_with_the_devices() -> None:
    assert [point.global_batch for point in scale_points("weak-batch", [MODEL], DEVICES, 256)] == [
        256,
        512,
        2048,
    ]
    # 96 devices have half as much again as 64
    assert [point.global_batch for point in scale_points("weak-batch", [MODEL], (64, 96), 10)] == [10, 15]


def test_weak_in_model_takes_a_model_for_each_number_of_devices() -> None:
    models = [load_model(name) for name in ("gpt-5b", "gpt-10b", "gpt-40b")]
    points = scale_points("weak-model", models, DEVICES, 256)
    assert [(point.model.name, point.global_batch) for point in points] == [
        ("gpt-5b", 256),
        ("gpt-10b", 256),
        ("gpt-40b", 256),
    ]


def test_a_model_that_grows_in_layers_has_them_in_proportion() -> None:
    points = scale_points("weak-model", [MODEL], DEVICES, 256)
    assert [point.model.num_layers for point in points] == [24, 48, 192]
    assert [point.model.name for point in points] == ["gpt-5b", "gpt-5b, 48 layers", "gpt-5b, 192 layers"]


def test_a_model_that_grows_in_width_has_about_the_weights_in_proportion() -> None:
    wide = grown(MODEL, 4.0, "hidden")
    # twice the width: 12 H^2 parameters in a layer
    assert (wide.hidden, wide.attention.heads, wide.mlp.hidden) == (8192, 64, 32768)
    layers = [parameters(model).attention + parameters(model).mlp for model in (MODEL, wide)]
    assert layers[1] / layers[0] == pytest.approx(4.0, rel=0.01)


def test_grouped_heads_and_experts_grow_alike() -> None:
    model = load_model("mixtral-8x7b")
    wide = grown(model, 2.0, "hidden")
    assert isinstance(model.attention, Attention)
    assert isinstance(wide.attention, Attention)
    assert (
        wide.attention.heads // wide.attention.kv_heads == model.attention.heads // model.attention.kv_heads
    )
    assert wide.attention.kv_heads % 8 == 0
    assert model.experts is not None
    assert wide.experts is not None
    ratio = wide.attention.heads / model.attention.heads
    assert wide.hidden == model.hidden * ratio
    assert wide.experts.hidden == model.experts.hidden * ratio


@pytest.mark.parametrize(
    ("mode", "models", "devices", "batch", "fault"),
    [
        (
            "weak-batch",
            1,
            (64, 96),
            9,
            "global_batch = 9 on 64 devices is 13.5 on 96; choose a multiple of 2",
        ),
        ("weak-model", 2, (64, 96, 128), 8, "2 models for 3 numbers of devices"),
        ("strong", 2, (64, 96), 8, "only --mode weak-model changes the model"),
        ("strong", 1, (64, 32), 8, "must be at least 1 and grow"),
        ("strong", 1, (0, 32), 8, "must be at least 1 and grow"),
        ("strong", 1, (8, 32), 0, "global_batch = 0"),
    ],
)
def test_what_does_not_go_together_is_told(mode, models, devices, batch, fault) -> None:
    with pytest.raises(TuningError, match=fault):
        scale_points(mode, [MODEL] * models, devices, batch)
