"""The vision encoder: it computes a picture's embeddings on its own thread and caches them by the picture's hash."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from impchat import images, settings
from impchat.bundle import Bundle
from impchat.engines.local.vision import EncodeResult, EncoderThread, OnnxVision
from impchat.errors import EngineError, ImageError, ModelError
from impchat.messages import Picture
from tests.core.conftest import Draw


@pytest.fixture
def vision(demo: Bundle) -> OnnxVision:
    return OnnxVision(demo, threads=1)


def test_a_picture_becomes_the_number_of_embeddings_in_the_manifest(
    vision: OnnxVision, demo: Bundle, draw: Draw
) -> None:
    embeddings = vision.encode(draw("red"))
    assert embeddings.shape == (demo.image.tokens, vision.hidden)
    assert embeddings.dtype == np.float32
    assert np.isfinite(embeddings).all()


def test_embeddings_are_those_of_the_vision_file_for_the_stored_bytes(
    vision: OnnxVision, demo: Bundle, draw: Draw
) -> None:
    rule = demo.image
    pixels = images.model_input(draw("red").data, rule.size, rule.aspect, rule.mean, rule.std)
    session = onnxruntime.InferenceSession(demo.vision, providers=["CPUExecutionProvider"])
    [expected] = session.run(None, {session.get_inputs()[0].name: pixels})
    np.testing.assert_allclose(vision.encode(draw("red")), expected[0], rtol=1e-3, atol=1e-3)


def test_different_pictures_have_different_embeddings(vision: OnnxVision, draw: Draw) -> None:
    assert not np.allclose(vision.encode(draw("red")), vision.encode(draw("blue")))


def test_low_memory_encoding_gives_nearly_the_same_embeddings(vision: OnnxVision, demo: Bundle, draw: Draw) -> None:
    lean = OnnxVision(demo, threads=1, packed=False).encode(draw("red"))
    full = vision.encode(draw("red"))
    near = (lean * full).sum(-1) / np.linalg.norm(lean, axis=-1) / np.linalg.norm(full, axis=-1)
    assert near.min() > 0.999
    assert not np.array_equal(lean, full)  # the computation differs


def test_threads_that_wait_leave_the_processors_to_the_language_model(vision: OnnxVision) -> None:
    options = vision._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.inter_op_num_threads == 1


def test_a_picture_is_encoded_once(vision: OnnxVision, draw: Draw) -> None:
    assert vision.cached(draw("red").sha256) is None
    first = vision.encode(draw("red"))
    assert vision.encode(draw("red")) is first
    assert vision.cached(draw("red").sha256) is first
    with pytest.raises(ValueError, match="read-only"):  # the array is shared
        first[0, 0] = 0


def test_only_the_latest_pictures_are_kept(vision: OnnxVision, draw: Draw) -> None:
    first, second = draw("red"), draw("blue")
    vision.encode(first)
    vision.encode(second)
    for n in range(settings.EMBEDDING_CACHE - 1):
        vision.encode(replace(draw("green"), sha256=f"copy {n}"))
        vision.cached(first.sha256)  # used again and again
    assert vision.cached(first.sha256) is not None
    assert vision.cached(second.sha256) is None


def test_an_unusable_picture_is_reported_and_not_cached(vision: OnnxVision) -> None:
    with pytest.raises(ImageError):
        vision.encode(Picture("broken", b"no picture"))
    assert vision.cached("broken") is None


def test_a_closed_encoder_refuses_pictures(vision: OnnxVision, draw: Draw) -> None:
    vision.close()
    with pytest.raises(EngineError) as refused:
        vision.encode(draw("red"))
    assert refused.value.code == "engine.vision_failed"


def test_a_broken_vision_file_is_refused_with_its_name(demo: Bundle, tmp_path: Path) -> None:
    name = demo.files["vision"].name
    (tmp_path / name).write_bytes(b"no onnx")
    with pytest.raises(ModelError) as refused:
        OnnxVision(replace(demo, path=tmp_path), threads=1)
    assert refused.value.code == "model.load_failed" and name in str(refused.value)


@pytest.fixture
def seen(vision: OnnxVision) -> Iterator[tuple[EncoderThread, "queue.SimpleQueue[EncodeResult]"]]:
    results: queue.SimpleQueue[EncodeResult] = queue.SimpleQueue()
    eyes = EncoderThread(vision, lambda _: True, results.put)
    yield eyes, results
    eyes.close()


def test_pictures_are_encoded_in_the_order_of_the_requests(
    seen: tuple[EncoderThread, "queue.SimpleQueue[EncodeResult]"], draw: Draw
) -> None:
    eyes, results = seen
    asked = [draw("red"), Picture("broken", b"no picture"), draw("blue")]
    for picture in asked:
        eyes.look(picture)
    encoded = [results.get() for _ in asked]
    assert [s.sha256 for s in encoded] == [p.sha256 for p in asked]
    assert [s.embeddings is None for s in encoded] == [False, True, False]
    assert encoded[1].error is not None and encoded[1].error.code == "image.not_an_image"
    assert encoded[0].seconds > 0


def test_the_encoder_closes_at_once_with_requests_in_its_queue(vision: OnnxVision, draw: Draw) -> None:
    results: queue.SimpleQueue[EncodeResult] = queue.SimpleQueue()
    first = threading.Event()

    def done(result: EncodeResult) -> None:
        results.put(result)
        first.set()

    eyes = EncoderThread(vision, lambda _: True, done)
    for n in range(100):
        eyes.look(replace(draw("red"), sha256=str(n)))
    first.wait()
    eyes.close()
    eyes.close()
    assert results.qsize() < 100
