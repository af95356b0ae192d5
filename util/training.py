"""The training loop."""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.utils.data import Subset
from tqdm import tqdm

from data import create_dataset, create_loader
from models import create_model
from models.base_model import BaseModel, Batch, TrainingStart
from options.base_options import options_text, run_folder
from util.display import create_display
from util.errors import UserError
from util.evaluation import evaluate, spread_indices
from util.pictures import panels_of, sheet
from util.run_log import RunLog

SNAPSHOT_ROWS = 4


def learning_rate_factor(options: argparse.Namespace, iteration: int) -> float:
    """Factor of the learning rate at an iteration (from 1), by --lr_policy.

    lambda: 1 for --niter iterations, then linearly to 0 over --niter_decay; step: --lr_gamma for
    every full --lr_decay_iters; exponent: the same, continuously.
    """
    done = iteration - 1
    if options.lr_policy == "lambda":
        return 1.0 - max(0, done - options.niter + 1) / (options.niter_decay + 1)
    periods = done / options.lr_decay_iters
    return options.lr_gamma ** (int(periods) if options.lr_policy == "step" else periods)


def short_losses(losses: Mapping[str, torch.Tensor]) -> str:
    """The losses that count, for the bar's one line: those below 0.005 are left out."""
    values = {name.removesuffix("_gen"): value.item() for name, value in losses.items()}
    return " ".join(f"{name} {value:.2f}" for name, value in values.items() if abs(value) >= 0.005)


def prepare_folder(options: argparse.Namespace) -> Path:
    """The experiment's folder, made if need be, with train_opt.txt written.

    A fresh run never overwrites an earlier one: without --continue_train a folder that holds
    checkpoints or a log is renamed to NAME.earlier-N first, and that is said. With it, the options
    are added to those of the earlier stages.

    Raises:
        UserError: the folder cannot be made or written.
    """
    folder = run_folder(options)
    try:
        records = [*folder.glob("*_net_*.pth"), *folder.glob("loss_log.txt")]
        if records and not options.continue_train:
            number = 1
            while (earlier := folder.with_name(f"{folder.name}.earlier-{number}")).exists():
                number += 1
            folder.rename(earlier)
            print(f"{folder} held an earlier run: moved to {earlier}")
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "train_opt.txt", "a", encoding="utf-8") as file:
            file.write(options_text(options))
    except OSError as error:
        raise UserError(
            f"--checkpoints_dir: {folder} cannot be written: {error.strerror}"
        ) from error
    return folder


def keep_stage(folder: Path, model: str) -> None:
    """Keep the checkpoints of the stage before, whose file names the next stage uses again.

    `<label>_net_<key>.pth` gets the second name `<model>_<label>_net_<key>.pth`, the state file
    likewise, so that `--which_iter=<model>_<label>` loads it.
    """
    for path in [*folder.glob("*_net_*.pth"), *folder.glob("*_state.pth")]:
        label = path.name.split("_")[0]
        if label == "latest":  # stays until the next stage has saved its own
            shutil.copy2(path, folder / f"{model}_{path.name}")
        elif label.isdecimal():
            path.replace(folder / f"{model}_{path.name}")
    print(f"checkpoints of the stage before are kept as {folder}/{model}_*.pth")


def make_evaluation(
    options: argparse.Namespace, model: BaseModel
) -> Callable[[], dict[str, float]] | None:
    """A function that scores the model on test pairs, or None where there are none to score on."""
    if not options.eval_iters_freq:
        return None
    try:
        dataset = create_dataset(options, phase="test")
    except UserError as error:
        print(f"no evaluation during training: {error}")
        return None
    pairs = Subset(dataset, spread_indices(len(dataset), options.eval_pairs))

    def run() -> dict[str, float]:
        loader = create_loader(
            pairs,
            options.batchSize,
            training=False,
            workers=options.nThreads,
            device=model.device,
        )
        return evaluate(model.predict, loader, model.to_device)

    return run


class Trainer:
    """One training run: a model, its data, and the record of it.

    Args:
        options: parsed options of train.py.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        torch.manual_seed(options.seed)
        self.dataset = create_dataset(options)
        self.model = create_model(options)
        self.last_iteration = options.niter + options.niter_decay
        for line in self.model.notes(options):
            print(line)
        start = TrainingStart([])
        if options.continue_train:
            start = self.model.load_for_training(run_folder(options), options.which_iter)
            print("\n".join(start.lines))
        self.first_iteration = start.iteration + 1 if start.iteration else options.iter_count
        if self.first_iteration > self.last_iteration:
            raise UserError(
                f"--niter: iteration {self.first_iteration} is the next one, but --niter and "
                f"--niter_decay end the training after {self.last_iteration}; raise --niter"
            )
        self.folder = prepare_folder(options)
        if start.earlier_model:
            keep_stage(self.folder, start.earlier_model)
        self.evaluation = make_evaluation(options, self.model)
        self.display = create_display(options, self.folder, self.first_iteration)
        self.log = RunLog(self.folder, options.model, self.display)
        self.loader = create_loader(
            self.dataset,
            options.batchSize,
            training=True,
            workers=options.nThreads,
            seed=options.seed,
            shuffle=not options.serial_batches,
            start_iteration=self.first_iteration - 1,
            device=self.model.device,
        )

    def run(self) -> int:
        """Train to the end, or until Ctrl-C, which saves first.

        Returns:
            The exit code: 0, or 130 after Ctrl-C.
        """
        iteration = saved = self.first_iteration - 1
        about = (
            f"training {self.options.model} on {len(self.dataset)} pairs, iterations "
            f"{self.first_iteration} to {self.last_iteration}; records in {self.folder}"
        )
        print(about)
        self.display.text(about)
        bar = tqdm(
            total=self.last_iteration,
            initial=iteration,
            desc=self.options.model,
            unit="it",
            disable=None,
        )
        self._print_time, self._print_iteration, self._bar_time = time.monotonic(), iteration, 0.0
        self._stage = None
        self._data_wait = 0.0
        interrupted = False

        def interrupt(*_: object) -> None:
            nonlocal interrupted
            if interrupted:
                raise KeyboardInterrupt
            interrupted = True
            tqdm.write("stopping after this iteration and saving; Ctrl-C again stops at once")

        previous = signal.signal(signal.SIGINT, interrupt)
        try:
            batches = iter(self.loader)
            while iteration < self.last_iteration and not interrupted:
                self._show_stage(iteration + 1, bar)
                started = time.monotonic()
                batch = next(batches)
                self._data_wait += time.monotonic() - started
                batch = self.model.to_device(batch)
                self._iterate(iteration + 1, batch, bar)
                iteration += 1
                finished = time.monotonic()
                if iteration % self.options.save_iters_freq == 0:
                    self.model.save(self.folder, iteration, iteration)
                if iteration % self.options.save_latest_freq == 0:
                    self.model.save(self.folder, "latest", iteration)
                    saved = iteration
                self._show(iteration, batch)
                self._print_time += time.monotonic() - finished  # the log times iterations alone
        finally:  # also when an image cannot be read: what was trained is kept
            signal.signal(signal.SIGINT, previous)
            bar.close()
            self.display.close()
            if saved != iteration and isinstance(sys.exception(), UserError | None):
                self.model.save(self.folder, "latest", iteration)
        if not self.options.no_html:
            self.log.write_page()
        if self.dataset.skipped_reads:
            print(f"--skip_bad_samples replaced {self.dataset.skipped_reads} pairs, named above")
        if interrupted:
            print(
                f"stopped after iteration {iteration}, saved; --continue_train goes on from there"
            )
            return 130
        print(f"done: {iteration} iterations, checkpoint {self.folder}/latest_net_*.pth")
        return 0

    def _show_stage(self, iteration: int, bar: tqdm) -> None:
        stage = self.model.stage(iteration)
        if stage != self._stage:
            self._stage = stage
            bar.set_description(f"{self.options.model}, stage {stage}")
            tqdm.write(f"iteration {iteration}: stage {stage} of the training")

    def _iterate(self, iteration: int, batch: Batch, bar: tqdm) -> None:
        options = self.options
        self.model.set_learning_rates(learning_rate_factor(options, iteration), iteration)
        # What a step draws depends on (seed, iteration) alone: a resumed run is the same run.
        torch.manual_seed(options.seed << 32 | iteration)
        losses = self.model.training_step(batch, iteration)
        bar.update()
        if time.monotonic() - self._bar_time > 0.5:  # reading a loss waits for the GPU
            self._bar_time = time.monotonic()
            bar.set_postfix_str(short_losses(losses))
        if self._is_due(iteration, options.print_freq):
            self._print_losses(iteration, losses, bar)

    def _show(self, iteration: int, batch: Batch) -> None:
        options = self.options
        is_shown = self.display.shows_pictures or not options.no_html
        if is_shown and self._is_due(iteration, options.display_freq):
            small = {key: value[:SNAPSHOT_ROWS] for key, value in batch.items()}
            panels = panels_of(small, self.model.predict(small))
            if not options.no_html:
                self.log.snapshot(iteration, sheet(panels))
            pairs = zip(small["P1_path"], small["P2_path"], strict=True)
            names = [f"{Path(source).name} to {Path(target).name}" for source, target in pairs]
            self.display.pictures(iteration, panels, names)
        if self.evaluation and self._is_due(iteration, options.eval_iters_freq):
            try:
                line = f"test pairs {self.log.scores(iteration, self.evaluation())}"
            except UserError as error:  # a bad test image is no reason to lose a training run
                line = f"no evaluation at iteration {iteration}: {error}"
            tqdm.write(line)

    def _is_due(self, iteration: int, frequency: int) -> bool:
        return iteration % frequency == 0 or iteration == self.last_iteration

    def _print_losses(self, iteration: int, losses: dict[str, torch.Tensor], bar: tqdm) -> None:
        now = time.monotonic()
        count = iteration - self._print_iteration
        seconds, data_wait = (now - self._print_time) / count, self._data_wait / count
        self._print_time, self._print_iteration = now, iteration
        self._data_wait = 0.0
        values = {name: value.item() for name, value in losses.items()}
        rate = next(iter(self.model.optimizers.values())).param_groups[0]["lr"]
        epoch = self.loader.batch_sampler.epoch_of(iteration - 1) + 1
        line = self.log.losses(epoch, iteration, seconds, values, rate, data_wait, self._stage)
        if bar.disable:  # no terminal: plain lines in place of the bar
            print(line, flush=True)


def train(options: argparse.Namespace) -> int:
    """Train a model as the options say; returns the exit code."""
    return Trainer(options).run()
