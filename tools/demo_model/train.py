"""Train the demo model: `python -m tools.demo_model.train --out runs/demo`.

In: only a seed; pictures and questions are generated during training. Out: in the folder, `checkpoint/` (an Imp
checkpoint), `log.jsonl` and `loss.png`. First the vision tower alone, per patch; then tower and language together. One
worker process per core, each with one thread: on two cores three times as fast as one process with two threads. An
interrupted run resumes from its last saved state. This file does not know the evaluation (`evaluate`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
import torch.nn.functional as F
from torch import Tensor, nn

from impchat import settings
from impchat.models.convert import checkpoint
from tools.demo_model import eyes, scenes
from tools.demo_model.lessons import EOS, HUNDREDTHS, IMAGE, LAYOUTS, Lessons, make_tokenizer
from tools.demo_model.model import Imp, Size
from tools.demo_model.muon import Muon

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SAVE_EVERY = 100  # steps; a step takes 0.25 to 4 seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a run; equal plans generate equal pictures in equal order."""

    out: Path = Path("runs/demo")
    eyes_steps: int = 4500
    language_steps: int = 3900
    eyes_batch: int = 24  # pictures per step, over all workers
    language_batch: int = 16
    seed: int = 196
    workers: int = 2
    device: str = "cpu"


class Learner:
    """Parameters and their optimisers: Muon for the matrices inside the layers, AdamW for all others. With several
    workers, gradients are averaged and each worker computes its share of Muon's updates."""

    def __init__(self, groups: list[tuple[dict[str, nn.Parameter], float]]) -> None:
        """`groups`: parameters by name, with a factor for their learning rates."""
        fast, orthogonal = 2e-3, 0.006  # peak learning rates of AdamW and Muon
        self.parameters = [p for named, _ in groups for p in named.values()]
        muon: list[dict[str, Any]] = []
        adam: list[dict[str, Any]] = []
        for named, factor in groups:
            matrices: list[nn.Parameter] = []
            rest: list[nn.Parameter] = []
            for name, parameter in named.items():
                inside = parameter.ndim == 2 and ("layers." in name or "mm_projector" in name)
                (matrices if inside else rest).append(parameter)
            if matrices:
                muon.append({"params": matrices, "lr": orthogonal * factor})
            adam.append({"params": rest, "lr": fast * factor})
        self.optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(adam, betas=(0.9, 0.98), weight_decay=0.01)]
        if muon:
            self.optimisers.append(Muon(muon))
        self.peaks = [[group["lr"] for group in optimiser.param_groups] for optimiser in self.optimisers]

    def step(self, share: float) -> None:
        """One update from the current gradients, at `share` (0 to 1) of the peak learning rates."""
        if dist.is_initialized():
            live = [p.grad for p in self.parameters if p.grad is not None]
            flat = torch.cat([g.flatten() for g in live])
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
            for gradient, mean in zip(live, flat.split([g.numel() for g in live]), strict=True):
                gradient.copy_(mean.view_as(gradient))
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser, peaks in zip(self.optimisers, self.peaks, strict=True):
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)


def share(step: int, steps: int, warm: int = 40, floor: float = 0.02) -> float:
    """The learning rate relative to its peak: a short linear warm-up, then a linear decay."""
    return min((step + 1) / warm, floor + (1 - floor) * (steps - step) / steps)


def eyes_batch(plan: Plan, step: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels (n, 3, 196, 196) in -1..1, classes and measures for this worker's part of a step.

    At first most pictures are easy, because shapes are learned faster from these."""
    rng = Random(f"{plan.seed} eyes {step} {rank}")
    easy = max(0.1, 0.9 - 2 * step / plan.eyes_steps)
    drawings = [
        scenes.drawn(rng, scenes.EASY) if rng.random() < easy else scenes.scene(rng)
        for _ in range(plan.eyes_batch // plan.workers)
    ]
    taught = [eyes.targets(s) for s in drawings]
    return (
        torch.from_numpy(np.stack([eyes.pixels(s.picture) for s in drawings])).float() / 127.5 - 1,
        torch.from_numpy(np.stack([c for c, _ in taught])),
        torch.from_numpy(np.stack([b for _, b in taught])),
    )


class Run:
    """One worker's part of a run: model, saved state, log."""

    def __init__(self, plan: Plan, rank: int) -> None:
        self.plan, self.rank = plan, rank
        torch.manual_seed(plan.seed)
        torch.set_num_threads(1 if plan.device == "cpu" else torch.get_num_threads())
        self.size = Size()
        self.model = Imp(self.size).to(plan.device)
        self.teacher = eyes.Teacher(self.size.eyes).to(plan.device)
        self.began = time.monotonic()
        self.short = plan.device == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)

    def quick(self) -> torch.autocast:
        """Multiply in bfloat16 if the CPU does so five times as fast; sums stay float32."""
        return torch.autocast(self.plan.device, torch.bfloat16, enabled=self.short)

    def steps(self, stage: str, count: int, learner: Learner) -> Iterator[int]:
        """The remaining steps of a stage; saves the state at intervals and at the end."""
        path = self.plan.out / f"{stage}.pt"
        first = 0
        if path.exists():
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location=self.plan.device)
            self.model.load_state_dict(state["model"])
            self.teacher.load_state_dict(state["teacher"])
            for optimiser, saved in zip(learner.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
            first = state["step"]
        for step in range(first, count):
            yield step
            if self.rank == 0 and ((step + 1) % SAVE_EVERY == 0 or step + 1 == count):
                state = {
                    "step": step + 1,
                    "model": self.model.state_dict(),
                    "teacher": self.teacher.state_dict(),
                    "optimisers": [o.state_dict() for o in learner.optimisers],
                }
                torch.save(state, path.with_suffix(".part"))
                os.replace(path.with_suffix(".part"), path)

    def log(self, stage: str, step: int, **figures: float) -> None:
        """Append a line to log.jsonl; only the first worker does. Raises RuntimeError for a figure that is NaN or
        infinite."""
        if not all(map(math.isfinite, figures.values())):
            raise RuntimeError(f"{stage} step {step}: {figures}")
        if self.rank == 0:
            line = {"stage": stage, "step": step, "seconds": round(time.monotonic() - self.began, 1)}
            line |= {k: round(v, 4) for k, v in figures.items()}
            with (self.plan.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")


def teach_eyes(run: Run) -> None:
    """The first stage: each patch learns what it shows."""
    plan = run.plan
    learner = Learner([(dict(run.model.eyes.named_parameters()), 1.0), (dict(run.teacher.named_parameters()), 1.0)])
    look = torch.compile(run.model.eyes, dynamic=False)
    for step in run.steps("eyes", plan.eyes_steps, learner):
        pixels, classes, measures = (t.to(plan.device) for t in eyes_batch(plan, step, run.rank))
        with run.quick():
            loss, right = run.teacher.loss(look(pixels), classes, measures)
        loss.backward()
        with run.quick():
            learner.step(share(step, plan.eyes_steps))
        if step % 10 == 0:
            run.log("eyes", step, loss=loss.item(), **right)


def teach_language(run: Run, tokenizer: Tokenizer) -> None:
    """The second stage: projector and decoder learn to answer, while the tower keeps training slowly."""
    plan, model = run.plan, run.model
    eyes_named = {n: p for n, p in model.named_parameters() if "vision_tower" in n}
    language_named = {n: p for n, p in model.named_parameters() if "vision_tower" not in n}
    teacher_named = dict(run.teacher.named_parameters())
    learner = Learner([(language_named, 1.6), (eyes_named, 0.6), (teacher_named, 0.6)])
    teaching = Lessons(tokenizer)
    look = torch.compile(model.eyes, dynamic=False)
    fast = torch.compile(model.decode, dynamic=False)
    numerals = torch.tensor([tokenizer.token_to_id(n) for n in HUNDREDTHS], device=plan.device)
    for step in run.steps("language", plan.language_steps, learner):
        layout = Random(f"{plan.seed} layout {step}").choices(LAYOUTS, [one.weight for one in LAYOUTS])[0]
        rows = plan.language_batch // plan.workers
        lesson = teaching.batch(layout, Random(f"{plan.seed} language {step} {run.rank}"), rows)
        ids, learned, about, shown, hundredths = (
            torch.from_numpy(a).to(plan.device)
            for a in (lesson.ids, lesson.learned, lesson.about, lesson.shown, lesson.hundredths)
        )
        features, seen = torch.empty(0), torch.zeros(())
        with run.quick():
            if lesson.pictures:
                taken = np.stack([eyes.pixels(p.picture) for p in lesson.pictures])
                pixels = torch.from_numpy(taken).to(plan.device).float() / 127.5 - 1
                features = torch.cat([look(part) for part in pixels.split(rows)])  # a single shape, compiled once
                taught = [eyes.targets(p) for p in lesson.pictures]
                classes, measures = (torch.from_numpy(np.stack(a)).to(plan.device) for a in zip(*taught, strict=True))
                seen, _ = run.teacher.loss(features, classes, measures)
            states, scores = fast(model.embed(features, ids, shown), lesson.prefix, layout.branches)
            wanted = learned[:, 1:] > 0
            logits = model.lm_head(states[:, :-1][wanted])
        told = ids[:, 1:][wanted]
        loss = telling_loss(logits.float(), told, learned[:, 1:][wanted], hundredths[:, 1:][wanted], numerals)
        pointed = torch.zeros(())
        if layout.name in ("short", "longer"):
            pointed = pointing_loss(scores.float(), about, classes[..., 4])
        (loss + 0.4 * seen + 0.5 * pointed).backward()
        with run.quick():
            learner.step(share(step, plan.language_steps))
        if step % 10 == 0:
            figures = {
                "loss": loss,
                "eyes": seen,
                "pointed": pointed,
                "right": (logits.argmax(-1) == told).float().mean(),
            }
            layout_number = LAYOUTS.index(layout)
            run.log("language", step, layout=layout_number, **{name: f.item() for name, f in figures.items()})


def telling_loss(logits: Tensor, told: Tensor, weights: Tensor, hundredths: Tensor, numerals: Tensor) -> Tensor:
    """The mean cross entropy of `logits` (n, vocabulary) with the ids `told` (n,), weighted by `weights` (n,). Rows
    with `hundredths` (n, 100) use these as soft targets instead; `numerals` (100,) are their ids."""
    likely = logits.log_softmax(-1)
    plain = -likely.gather(-1, told[:, None])[:, 0]
    near = -(likely[:, numerals] * hundredths).sum(-1)
    loss: Tensor = (torch.where(hundredths.sum(-1) > 0, near, plain) * weights).sum() / weights.sum()
    return loss


def pointing_loss(scores: Tensor, about: Tensor, ranks: Tensor) -> Tensor:
    """How far the pointing heads are from attending to the things of an answer: the mean negative logarithm of the
    share of their attention (within the prefix) on these things' patches.

    `scores` (B, heads, own, prefix) of the positions after the prefix, whose last 196 positions are the picture's;
    `about` (B, prefix + own): the things that the id refers to, one bit each; `ranks` (B, 196): the thing of each
    patch, or -1. Among the many patches of a picture the right ones are rarely found by chance: without this loss the
    language learns which thing is meant after 600 steps, with it the heads point correctly after 100."""
    prefix = scores.shape[-1]
    bits = torch.where(ranks >= 0, 1 << ranks.clamp(min=0), 0)
    wanted = F.pad(about[:, prefix + 1 :], (0, 1))  # each position predicts the next id
    hit = (wanted[:, :, None] & bits[:, None, :]) != 0
    on = hit.any(-1)
    there = scores[..., -ranks.shape[-1] :].masked_fill(~hit[:, None], -1e9).logsumexp(-1) - scores.logsumexp(-1)
    missed: Tensor = -(there * on[:, None]).sum() / (on.sum() * scores.shape[1]).clamp(min=1)
    return missed


def save(run: Run, tokenizer: Tokenizer) -> None:
    """Write the Imp checkpoint and the plot of the losses."""
    size, path = run.size, run.plan.out / "checkpoint"
    config = {
        "architectures": ["ImpForCausalLM"],
        "model_type": "imp",
        "vocab_size": size.vocabulary,
        "hidden_size": size.language,
        "intermediate_size": size.language_mlp,
        "num_hidden_layers": size.language_layers,
        "num_attention_heads": size.language // size.head,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": size.rotary / size.head,
        "rope_theta": 10000.0,
        "max_position_embeddings": settings.CONTEXT_TOKENS,
        "tie_word_embeddings": False,
        "eos_token_id": tokenizer.token_to_id(EOS),
        "image_token": IMAGE,
        "image_token_index": tokenizer.token_to_id(IMAGE),
        "image_aspect_ratio": "square",
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": size.eyes,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": size.eyes,
            "intermediate_size": size.eyes_mlp,
            "num_attention_heads": size.eyes // size.head,
            "num_hidden_layers": size.eyes_layers + 1,  # as in Imp, whose last layer is not in the file
            "image_size": size.image,
            "patch_size": size.patch,
            "layer_norm_eps": 1e-6,
            "hidden_act": "gelu_pytorch_tanh",
        },
    }
    checkpoint.write(
        path, {n: t.detach().cpu().contiguous() for n, t in run.model.state_dict().items()}, config, tokenizer
    )
    plot(run.plan.out)


def plot(out: Path) -> None:
    """Plot log.jsonl to loss.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6))
    for axis, stage, label in zip(
        axes, ("eyes", "language"), ("eyes: all heads", "language: answer tokens"), strict=True
    ):
        axis.plot(
            [x["step"] for x in lines if x["stage"] == stage], [x["loss"] for x in lines if x["stage"] == stage], lw=1
        )
        axis.set(title=label, xlabel="step", ylabel="loss", yscale="log")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out / "loss.png", dpi=110)


def kept_tokenizer(plan: Plan) -> Tokenizer:
    """The run's tokenizer, made once, so that a resumed run keeps it even if the questions have changed."""
    from tokenizers import Tokenizer

    path = plan.out / "tokenizer.json"
    if path.exists():
        kept: Tokenizer = Tokenizer.from_file(str(path))
        return kept
    return make_tokenizer(plan.seed)


def work(rank: int, plan: Plan) -> None:
    """Run one worker."""
    if plan.workers > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the workers communicate over loopback only
        meeting = f"file://{(plan.out / 'meeting').resolve()}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=plan.workers)
    run = Run(plan, rank)
    tokenizer = kept_tokenizer(plan)
    teach_eyes(run)
    teach_language(run, tokenizer)
    if rank == 0:
        save(run, tokenizer)
    if plan.workers > 1:
        dist.destroy_process_group()


def main(argv: list[str] | None = None) -> None:
    """Start or resume the run in the folder `--out`."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_model.train", description=main.__doc__)
    usual = Plan()
    parser.add_argument("--out", type=Path, default=usual.out)
    parser.add_argument("--eyes-steps", type=int, default=usual.eyes_steps)
    parser.add_argument("--language-steps", type=int, default=usual.language_steps)
    parser.add_argument("--eyes-batch", type=int, default=usual.eyes_batch, help="pictures in a step")
    parser.add_argument("--language-batch", type=int, default=usual.language_batch, help="rows in a step")
    parser.add_argument("--seed", type=int, default=usual.seed)
    given = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    workers = 1 if device == "cuda" else min(2, os.cpu_count() or 1)
    plan = Plan(**vars(given), workers=workers, device=device)
    plan.out.mkdir(parents=True, exist_ok=True)
    kept_tokenizer(plan).save(str(plan.out / "tokenizer.json"))
    (plan.out / "meeting").unlink(missing_ok=True)
    if workers == 1:
        work(0, plan)
    else:
        processes.spawn(work, (plan,), nprocs=workers)


if __name__ == "__main__":
    main()
