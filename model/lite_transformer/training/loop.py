"""The training loop: resumable at any kill, on one process or many, CPU or GPU, through accelerate.

1. prepare data (cached)  2. restore state  3. update, validate, save  4. average checkpoints  5. write the model.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import Tensor, nn

from lite_transformer.averaging import average
from lite_transformer.checkpoint import TOKENIZER, load_config, load_model, load_weights, write_model
from lite_transformer.config import ModelConfig
from lite_transformer.files import staged_folder
from lite_transformer.model import LiteTransformer
from lite_transformer.presets import preset
from lite_transformer.sole_user import sole_user
from lite_transformer.training.allocator import keep_freed_memory, return_freed_memory
from lite_transformer.training.batches import collate, epoch_batches
from lite_transformer.training.feed import Feed, Update
from lite_transformer.training.meter import Meter, peak_flops
from lite_transformer.training.objective import Objective, token_loss
from lite_transformer.training.prepare import Prepared, Report, prepare
from lite_transformer.training.recipe import Recipe, RecipeError
from lite_transformer.training.schedule import learning_rate
from lite_transformer.training.store import RunStore

Metrics = dict[str, Any]
# (model, tokenizer file, sources, references) -> sacreBLEU; injected, for search lives outside this package.
ScoreBleu = Callable[[LiteTransformer, Path, list[str], list[str]], float]
# How long a process waits for the others: a run may be paused, and one process alone prepares the data.
_PATIENCE = timedelta(days=1)


class DivergedError(ValueError):
    """Gradients became infinite or NaN: nothing after that is worth keeping."""


class Interrupted(Exception):
    """The run was asked to stop and has saved its state; the same command continues it."""


def train(
    recipe: Recipe,
    data: Path,
    work: Path,
    on_metrics: Callable[[Metrics], None],
    report: Report = print,
    score_bleu: ScoreBleu | None = None,
) -> Path:
    """Run a recipe to its last update, from wherever ``work`` stands, and write ``work/final``.

    Args:
        data: folder the recipe's paths are relative to.
        on_metrics: called on the main process every ``log_every`` updates, with means since the call before (live
            progress), and after every validation.
        score_bleu: validation by translation, every ``bleu_every`` updates.

    Raises:
        Interrupted: SIGINT or SIGTERM arrived; state is saved.
        CorpusError, CheckpointError, RecipeError: the data, the saved state or the recipe cannot be used.
        DivergedError: the rate was too high; the last good state is kept.
        InUseError: another run is at work in this folder.
    """
    config = _model_config(recipe)
    keep_freed_memory()
    waiting = InitProcessGroupKwargs(timeout=_PATIENCE)
    # Half precision is the objective's own, so that the compiler sees it.
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no", kwargs_handlers=[waiting])
    # Of several processes the main one answers for all.
    with sole_user(work) if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            RunStore(work).tidy()
            report(_standing(recipe, work))
        with accelerator.main_process_first():
            prepared = prepare(recipe, data, work, report if accelerator.is_main_process else lambda _: None)
        return _Run(recipe, config, prepared, work, accelerator, on_metrics, score_bleu).run()


class _Run:
    def __init__(
        self,
        recipe: Recipe,
        config: ModelConfig,
        prepared: Prepared,
        work: Path,
        accelerator: Accelerator,
        on_metrics: Callable[[Metrics], None],
        score_bleu: ScoreBleu | None,
    ) -> None:
        self.recipe, self.config, self.prepared, self.accelerator = recipe, config, prepared, accelerator
        self.on_metrics, self.score_bleu = on_metrics, score_bleu
        self.store = RunStore(work)
        torch.manual_seed(recipe.seed)
        bare = _new_model(recipe, self.config)
        bare_optimizer = torch.optim.AdamW(
            bare.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True
        )
        self.progress = self.store.load_state(bare, bare_optimizer)
        for group in bare_optimizer.param_groups:
            group["weight_decay"] = recipe.weight_decay  # the saved state brought that of its time
        if accelerator.is_main_process:
            self.store.forget_after(self.progress.step)
        objective = Objective(bare, recipe.label_smoothing, recipe.precision)
        if recipe.compile and accelerator.device.type == "cuda":
            # In place: the model inside keeps its names, and runs as it is when it validates. On a CPU compiling takes
            # longer than a small run.
            objective.compile(dynamic=True)
        self.objective: nn.Module
        self.objective, self.optimizer = accelerator.prepare(objective, bare_optimizer)
        half = recipe.precision == "bf16"
        self.meter = Meter(bare, peak_flops(accelerator.device) if half else None)
        self.stop_asked = False
        self.saved_at = time.monotonic()

    def run(self) -> Path:
        with _on_signals(self._ask_stop), closing(self._feed()) as updates:
            self.meter.restart()
            while not self._last():
                self._update(next(updates))
                self._after_update()
        return self._finish()

    def _ask_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self.stop_asked = True

    def _feed(self) -> Generator[Update, None, None]:
        accelerator, corpora = self.accelerator, self.prepared.corpora
        pinned = accelerator.device.type == "cuda"
        feed = Feed(self.recipe, self.config, corpora, accelerator.num_processes, accelerator.process_index, pinned)
        return feed.updates(self.progress.epoch, self.progress.batch)

    def _update(self, update: Update) -> None:
        """One step of the optimizer. Nothing here waits for the device."""
        step, rank = self.progress.step, self.accelerator.process_index
        # Seeding each update makes dropout independent of where a run was resumed.
        torch.manual_seed((self.recipe.seed << 40) + (step << 8) + rank)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe.schedule, step)
        self.objective.train()
        loss = self._backward(update)
        norm = self.accelerator.clip_grad_norm_(self.objective.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.meter.add(loss, norm, update.source_tokens, update.target_tokens)
        self.progress.step += 1
        self.progress.epoch, self.progress.batch = update.epoch, update.number + 1
        self.progress.target_tokens += update.target_tokens

    def _backward(self, update: Update) -> Tensor:
        """Gradients of the mean loss over all target tokens of the update, and this process's own mean, returned."""
        # Counted before the batches leave the CPU: on the device each count would be a wait.
        counts = [int((batch.labels != self.config.pad).sum()) for batch in update.batches]
        # Gradients are averaged over processes, whose batches need not have equally many tokens.
        share = self.accelerator.num_processes / update.target_tokens
        total = torch.zeros((), device=self.accelerator.device)
        for number, (batch, count) in enumerate(zip(update.batches, counts, strict=True), 1):
            last = number == len(counts)
            with nullcontext() if last else self.accelerator.no_sync(self.objective):
                there = batch.to(self.accelerator.device)
                loss = self.objective(there.source, there.decoder_input, there.labels)
                self.accelerator.backward(loss * (count * share))
            total += loss.detach() * (count / sum(counts))
        return total

    def _after_update(self) -> None:
        if not self._meets():
            return
        self._report()
        step = self.progress.step
        if self.accelerator.is_main_process:
            if step % self.recipe.average_every == 0 or self._last():
                self.store.keep(self._bare(), step, self.recipe.average)
            if step % self.recipe.validate_every == 0 or self._last():
                self._validate()
        stop = self._agreed(self.stop_asked)
        if stop or self._agreed(self._save_due()):
            self._save()
        if stop:
            raise Interrupted(f"stopped after update {step}; the same command continues")
        self.meter.restart()

    def _meets(self) -> bool:
        """Whether there is more to do than to go on; processes must all agree, so that time counts for one alone."""
        recipe = self.recipe
        every = (recipe.log_every, recipe.average_every, recipe.validate_every)
        alone = self.accelerator.num_processes == 1 and (self.stop_asked or self._save_due())
        return alone or self._last() or any(self.progress.step % n == 0 for n in every)

    def _save_due(self) -> bool:
        return time.monotonic() - self.saved_at > self.recipe.save_minutes * 60

    def _report(self) -> None:
        reading = self.meter.read()
        self.progress.seconds += reading.seconds
        # The same on every process, so all stop here.
        if not math.isfinite(reading.norm):
            raise self._diverged()
        if self.accelerator.is_main_process:
            self.on_metrics(
                {
                    "step": self.progress.step,
                    "steps": self.recipe.schedule.steps,
                    "epoch": self.progress.epoch,
                    "rate": self.optimizer.param_groups[0]["lr"],
                    **dataclasses.asdict(reading),
                }
            )

    def _diverged(self) -> DivergedError:
        good = self.store.progress().step
        return DivergedError(
            f"update {self.progress.step}: gradients are no longer finite. Lower schedule.peak, or raise"
            f" schedule.warmup; the same command then goes on from update {good}"
        )

    def _agreed(self, mine: bool) -> bool:
        """True on every process where it is true on one: all must stop at the same update."""
        if self.accelerator.num_processes == 1:
            return mine
        flag = torch.tensor(float(mine), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            self.store.save_state(self._bare(), self.optimizer, self.progress)
        return_freed_memory()
        self.saved_at = time.monotonic()

    def _bare(self) -> LiteTransformer:
        objective = self.accelerator.unwrap_model(self.objective)
        assert isinstance(objective, Objective)
        return objective.model

    def _validate(self) -> None:
        model = self._bare().eval()
        entry: Metrics = {**self.progress.model_dump(), "valid_nll": self._validation_nll(model)}
        entry["perplexity"] = math.exp(min(20.0, entry["valid_nll"]))
        every = self.recipe.bleu_every
        if self.score_bleu and every and (self.progress.step % every == 0 or self._last()):
            text = self.prepared.validation_text[: self.recipe.bleu_sentences]
            sources, references = ([p[i] for p in text] for i in (0, 1))
            entry["bleu"] = self.score_bleu(model, self.prepared.tokenizer, sources, references)
        self.store.append_log(entry)
        self.on_metrics(entry)

    def _last(self) -> bool:
        return self.progress.step >= self.recipe.schedule.steps

    @torch.no_grad()
    def _validation_nll(self, model: LiteTransformer) -> float:
        """Negative log-likelihood per target token of the validation pairs."""
        corpora = [self.prepared.validation]
        total, count = 0.0, 0
        for rows in epoch_batches(corpora, [1.0], 0, 0, self.recipe.batch_tokens):
            batch = collate(rows, corpora, self.config).to(self.accelerator.device)
            logits = model(batch.source, batch.decoder_input)
            total += token_loss(logits, batch.labels, self.config.pad, reduction="sum").item()
            count += int((batch.labels != self.config.pad).sum())
        return total / max(count, 1)

    def _finish(self) -> Path:
        final = self.store.folder / "final"
        if self.accelerator.is_main_process:
            self._save()
            weights = average(self.store.kept()[-self.recipe.average :])
            load_weights(LiteTransformer(self.config), weights, "the averaged checkpoints")
            with staged_folder(final) as staging:
                write_model(staging, self.config, weights, torch.float16)
                (staging / TOKENIZER).write_bytes(self.prepared.tokenizer.read_bytes())
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return final


def _standing(recipe: Recipe, work: Path) -> str:
    """Where the run stands before its first update of now."""
    step, steps = RunStore(work).progress().step, recipe.schedule.steps
    if not step:
        return f"{recipe.name}: starting in {work}, {steps} updates"
    return f"{recipe.name}: continuing in {work} from update {step} of {steps}"


def _new_model(recipe: Recipe, config: ModelConfig) -> LiteTransformer:
    """With the recipe's seed, or the weights of the model it starts from."""
    model = LiteTransformer(config)
    if recipe.start:
        model.load_state_dict(load_model(Path(recipe.start)).state_dict())
    return model


def _model_config(recipe: Recipe) -> ModelConfig:
    config, origin = _origin(recipe)
    if config.encoder is None:
        raise RecipeError(f"{origin} is a language model: this training is for pairs of sentences")
    longest = min(config.max_source, config.max_target) - 1
    if recipe.cleaning.max_tokens > longest:
        raise RecipeError(f"cleaning.max_tokens must be at most {longest} for {origin}")
    dropout = config.dropout if recipe.dropout is None else recipe.dropout
    return config.model_copy(update={"dropout": dropout})


def _origin(recipe: Recipe) -> tuple[ModelConfig, str]:
    """The recipe's model, its dropout apart, and what to call it."""
    if recipe.start:
        return load_config(Path(recipe.start)), recipe.start
    try:
        config = preset(recipe.preset).config
    except KeyError as error:
        raise RecipeError(str(error.args[0])) from None
    vocab = recipe.tokenizer.vocab
    return config.model_copy(update={"source_vocab": vocab, "target_vocab": vocab}), f"the preset {recipe.preset}"


class _on_signals:
    """SIGINT and SIGTERM call ``handler`` inside the block."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self.handler = handler

    def __enter__(self) -> None:
        self.before = {s: signal.signal(s, self.handler) for s in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
