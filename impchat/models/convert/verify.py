"""Verify that a bundle computes what its checkpoint computes, and that its answers make sense.

In: a bundle, and its checkpoint if that still exists. Out: `Measurements`, which are stored in the manifest. Three
things are measured:

- its vision encoder against the checkpoint's, run by transformers in float32: the cosine of each patch's embedding;
- its next tokens against the checkpoint's, wherever the checkpoint is sure of one;
- for trained weights, how likely it finds right answers about the sample pictures, the end after them, and wrong
  answers. The first two cannot detect a wrong fact that conversion and reference share (the last layer of the vision
  tower, how a picture is fitted, how many dimensions rotate, which token ends an answer); with a wrong one, a model
  finds right answers unlikely.

The first two show whether our files compute what the checkpoint computes: if they do not, that is a bug, and raises an
error. The third is compared with bounds, which may be wrong for weights that nobody has tried: a bundle that misses
them is kept and marked (`Bundle.unverified`). Choices that no file determines are measured as well, so that the user
can see with which template, with or without system text, and with which way to fit a wide picture into a square right
answers are likeliest.

Trained weights are distinguished from random ones by their token embeddings: training gives them common directions,
which independent random numbers do not have. A bundle with the name of a published model always counts as trained.
Limits: a small error that keeps the answers likely, such as a similar mean colour, is not detected; and the bounds for
models other than the demo come from what any such model must know, because only the demo's trained weights were
available when they were set.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from impchat import images, settings
from impchat.bundle import Aspect, Bundle
from impchat.engines.local import kv_cache
from impchat.errors import ModelError
from impchat.messages import Picture
from impchat.models import catalog
from impchat.models.convert import vision
from impchat.models.convert.layouts import Weights
from impchat.models.convert.measure import Subject, sample
from impchat.models.convert.pairs import PAIRS, WIDE, WIDE_PICTURES, Pair
from impchat.models.convert.reference import Reference

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_PICTURES = ("shapes.png", "landscape.jpg")  # compared with the source
_ROWS = 4096  # token embeddings to examine


@dataclass(frozen=True, slots=True)
class Measurements:
    """The measurements; None: not possible."""

    trained: bool
    cosine: float | None = None  # mean over all patches, with the source's embeddings
    cosine_least: float | None = None  # of the worst patch
    agreement: float | None = None  # share of next tokens that equal the source's, where it is sure
    sure: int | None = None  # how many those are
    nll: float | None = None  # nats per token of the right answers
    end_nll: float | None = None  # nats for the end after them
    contrast: float | None = None  # nats by which wrong answers are less likely than right ones
    templates: Choice | None = None  # for Phi-3, whose checkpoints do not say which one they were trained with
    aspects: Choice | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Several ways to do something, and the one that the bundle uses."""

    used: str
    nats: dict[str, float]  # way -> nats per token of right answers


@dataclass(frozen=True, slots=True)
class _Bound:
    figure: str
    least: float | None = None
    most: float | None = None
    hard: bool = False  # a miss is an error

    def holds(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


def verify(bundle: Bundle, source: Path | Weights | None = None) -> Measurements:
    """Measure `bundle`, against its checkpoint `source` if given.

    Without `source`, only trained weights can be judged, by their answers. A checkpoint is read layer by layer, so a
    model of any size needs memory only for its largest layer and the vision tower, in addition to the bundle.
    Raises ModelError "verify.failed" with the figures and their bounds if the bundle does not compute what its
    checkpoint does; otherwise as LocalEngine and `layouts.recognise`."""
    trained = bundle.id in catalog.ENTRIES or is_trained(bundle, source if isinstance(source, Weights) else None)
    with Subject(bundle) as subject:
        found: dict[str, Any] = {}
        if source is not None:
            found |= _against(subject, Reference(source, streamed=True))
            if missed := _missed(bundle, found, hard=True):
                raise ModelError("verify.failed", id=bundle.id, figures=missed)
        if trained:
            found |= _answers(subject, [pair for pair in PAIRS if pair.demo or not bundle.demo])
            found |= _choices(subject)
    return Measurements(trained, **found)


def doubts(bundle: Bundle, figures: Measurements) -> str:
    """The figures that miss their bounds without proving a bug, and these bounds; "" if there are none. The value of
    `Bundle.unverified`."""
    return _missed(bundle, asdict(figures), hard=False)


def measured(bundle: Bundle, source: Path | Weights | None = None) -> Bundle:
    """`bundle` with the current results of `verify` in its fields. Raises as `verify`."""
    figures = verify(bundle, source)
    found = {name: value for name, value in asdict(figures).items() if value is not None}
    merged = {**bundle.figures, "verify": {**bundle.figures.get("verify", {}), **found}}
    return replace(bundle, figures=merged, unverified=doubts(bundle, figures))


def write_eyes(weights: Weights, path: Path, kind: str, *, least: float = settings.VERIFY_COSINE) -> str:
    """Write the vision file `path` of the type `kind`, and return the type used: an 8-bit file whose embeddings differ
    from the checkpoint's (a mean cosine below `least`, or one patch beyond a hard bound) is written again in 16."""
    vision.write(weights.eyes, weights.read, path, scheme=vision.TYPES[kind])
    if kind != "int8":
        return kind
    half = (0.5, 0.5, 0.5)
    size = weights.eyes.image_size
    pixels = [images.model_input(sample(name).data, size, "square", half, half) for name in _PICTURES]
    reference = Reference(weights, streamed=True)
    near = [cosines(_look(path, values), reference.embed(values)[0]) for values in pixels]
    if all(values.mean() >= least and values.min() >= settings.VERIFY_COSINE_LEAST for values in near):
        return kind
    vision.write(weights.eyes, weights.read, path, scheme=vision.TYPES["fp16"])
    return "fp16"


def is_trained(bundle: Bundle, weights: Weights | None = None) -> bool:
    """Whether the token embeddings of `bundle`, or of the `weights` it was made from, have more in common than
    independent random numbers could: the largest singular value of n x m such numbers of deviation s is about s (sqrt n
    + sqrt m)."""
    import numpy as np

    rows = _token_rows(bundle) if weights is None else _some(weights.read("model.embed_tokens.weight"))
    rows = rows.astype(np.float64)
    expected = rows.var() * sum(np.sqrt(side) for side in rows.shape) ** 2
    largest = np.linalg.eigvalsh(rows.T @ rows)[-1]
    return bool(largest > settings.VERIFY_TRAINED * expected)


def _token_rows(bundle: Bundle) -> NDArray[Any]:
    import gguf

    tensor = next(t for t in gguf.GGUFReader(bundle.language).tensors if t.name == "token_embd.weight")
    rows: NDArray[Any] = gguf.quants.dequantize(_some(tensor.data), tensor.tensor_type)
    return rows


def _some(rows: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    return np.ascontiguousarray(rows[:: max(1, len(rows) // _ROWS)])


def cosines(ours: Floats, theirs: Floats) -> Floats:
    """The cosine of each row of `ours` with that of `theirs`."""
    import numpy as np

    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    near: Floats = (ours * theirs).sum(-1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return near


def _missed(bundle: Bundle, values: Mapping[str, Any], *, hard: bool) -> str:
    """Those of `values` that miss their bounds, as text."""
    bounds = [b for b in _bounds(bundle) if b.hard is hard and values.get(b.figure) is not None]
    return ", ".join(_format(b, values[b.figure]) for b in bounds if not b.holds(values[b.figure]))


def _bounds(bundle: Bundle) -> list[_Bound]:
    if bundle.mmproj is not None:  # another model: no answers are known to be required
        return []
    nll, end, contrast = settings.VERIFY_DEMO_ANSWERS if bundle.demo else settings.VERIFY_ANSWERS
    return [
        _Bound("cosine", least=settings.VERIFY_COSINE, hard=True),
        _Bound("cosine_least", least=settings.VERIFY_COSINE_LEAST, hard=True),
        _Bound("agreement", least=settings.VERIFY_AGREEMENT[bundle.files["language"].type], hard=True),
        _Bound("nll", most=nll),
        _Bound("end_nll", most=end),
        _Bound("contrast", least=contrast),
    ]


def _format(bound: _Bound, value: float) -> str:
    limit = f"≥ {bound.least}" if bound.least is not None else f"≤ {bound.most}"
    return f"{bound.figure} {value:.3g} ({limit})"


def _against(subject: Subject, reference: Reference) -> dict[str, Any]:
    """Compare the vision encoder and the next tokens of a bundle with those of its checkpoint."""
    import numpy as np

    near, prompts, wanted, ours = [], [], [], []
    for name in _PICTURES:
        picture, pair = sample(name), next(pair for pair in PAIRS if pair.picture == name)
        seen = reference.embed(_pixels(subject.bundle, picture))[0]
        near.append(cosines(subject.eyes.encode(picture), seen))
        cells = subject.cells(picture, pair.question, pair.answer)
        at = [n for n, cell in enumerate(cells) if isinstance(cell, int)]
        prompts.append(_pieces(cells, seen))
        wanted.append(at)
        ours.append(subject.logits(cells, picture, at))
    theirs = np.concatenate(reference.together(prompts, wanted))
    chances = np.exp(-_nll(theirs, theirs.argmax(-1)))
    sure = chances >= settings.VERIFY_SURE
    same = theirs.argmax(-1) == np.concatenate(ours).argmax(-1)
    all_near = np.concatenate(near)
    return {
        "cosine": float(all_near.mean()),
        "cosine_least": float(all_near.min()),
        "agreement": float(same[sure].mean()) if sure.any() else None,
        "sure": int(sure.sum()),
    }


def _answers(subject: Subject, pairs: Sequence[Pair]) -> dict[str, float]:
    """How likely right answers and their ends are, and how much less likely wrong answers are."""
    import numpy as np

    words, ends, contrasts = [], [], []
    for pair in pairs:
        picture = sample(pair.picture)
        asked = len(subject.cells(picture, pair.question))
        right, wrong = (_costs(subject, picture, pair.question, text, asked) for text in (pair.answer, pair.wrong))
        words.append(right[:-1].mean())
        ends.append(right[-1])
        contrasts.append(wrong[:-1].sum() - right[:-1].sum())
    return {"nll": float(np.mean(words)), "end_nll": float(np.mean(ends)), "contrast": float(np.mean(contrasts))}


def _choices(subject: Subject) -> dict[str, Any]:
    """How likely right answers are with each way that the checkpoint does not determine. Asks few questions, each about
    a picture that was read before, because pictures take most of the time."""
    bundle, found = subject.bundle, {}
    if bundle.mmproj is not None:
        return {}
    wide = [_seen(_wide(), bundle.image.size, aspect) for aspect in get_args(Aspect)]
    nats = {
        aspect: _nats(subject, [(picture, pair) for pair in WIDE])
        for aspect, picture in zip(get_args(Aspect), wide, strict=True)
    }
    found["aspects"] = Choice(bundle.image.aspect, nats)
    if bundle.template in ("phi3", "phi3-tight"):
        asked = [(sample(pair.picture), pair) for pair in PAIRS if pair.picture == _PICTURES[0]]
        ways = {
            f"{t}, {'' if system else 'no '}system text": (t, system)
            for t in ("phi3", "phi3-tight")
            for system in (settings.SYSTEM, "")
        }
        used = f"{bundle.template}, {'' if bundle.text.system != '' else 'no '}system text"
        found["templates"] = Choice(used, {way: _nats(subject, asked, *how) for way, how in ways.items()})
    return found


def _nats(
    subject: Subject, asked: Sequence[tuple[Picture, Pair]], template: str | None = None, system: str | None = None
) -> float:
    """Average for each token of the right answers."""
    import numpy as np

    with subject.writing_as(template, system):
        costs = [
            _costs(subject, picture, pair.question, pair.answer, len(subject.cells(picture, pair.question)))[:-1].mean()
            for picture, pair in asked
        ]
    return float(np.mean(costs))


def _wide() -> Picture:
    """Two of the sample pictures next to each other."""
    import PIL.Image

    parts = [images.decode(sample(name).data) for name in WIDE_PICTURES]
    joined = PIL.Image.new("RGB", (sum(part.width for part in parts), max(part.height for part in parts)))
    at = 0
    for part in parts:
        joined.paste(part, (at, 0))
        at += part.width
    return _picture(joined)


def _seen(picture: Picture, size: int, aspect: Aspect) -> Picture:
    """`picture` as a square of the encoder's own size, which no aspect changes."""
    import numpy as np
    import PIL.Image

    pixels = images.model_input(picture.data, size, aspect, (0.5,) * 3, (1.0,) * 3)[0].transpose(1, 2, 0)
    return _picture(PIL.Image.fromarray(np.rint((pixels + 0.5) * 255).astype(np.uint8)))


def _picture(pixels: PIL.Image.Image) -> Picture:
    out = io.BytesIO()
    pixels.save(out, "PNG")
    return Picture(hashlib.sha256(out.getvalue()).hexdigest(), out.getvalue())


def _costs(subject: Subject, picture: Picture, question: str, answer: str, asked: int) -> NDArray[np.float64]:
    """Nats for each token of `answer` and for the eos after it; `asked`: the position where the answer begins."""
    import numpy as np

    cells = subject.cells(picture, question, answer)
    logits = subject.logits(cells, picture, range(asked - 1, len(cells) - 1))
    return _nll(logits, np.array(cells[asked:]))


def _nll(logits: Floats, tokens: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Nats for each of `tokens`, from its row of `logits`."""
    import numpy as np

    exact = logits.astype(np.float64)
    exact -= exact.max(-1, keepdims=True)
    costs: NDArray[np.float64] = np.log(np.exp(exact).sum(-1)) - exact[np.arange(len(tokens)), tokens]
    return costs


def _pieces(cells: Sequence[kv_cache.Cell], seen: Floats) -> list[Any]:
    """`cells` in the form for the reference: runs of token ids, and the embeddings of the picture."""
    pieces: list[Any] = []
    for cell in cells:
        if not isinstance(cell, int):
            if cell[1] == 0:
                pieces.append(seen)
        elif pieces and isinstance(pieces[-1], list):
            pieces[-1].append(cell)
        else:
            pieces.append([cell])
    return pieces


def _pixels(bundle: Bundle, picture: Picture) -> Floats:
    rule = bundle.image
    return images.model_input(picture.data, rule.size, rule.aspect, rule.mean, rule.std)


def _look(path: Path, pixels: Floats) -> Floats:
    """The embeddings (tokens, hidden) of one picture, computed by the vision file `path`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    seen: Floats = session.run(None, {"pixel_values": pixels})[0][0]
    return seen
