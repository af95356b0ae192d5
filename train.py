"""Train a model.

Stage 1:  python train.py --name=fashion --model=poseflownet --attn_layer=2,3 --kernel_size=2=5,3=3
              --gpu_id=0 --dataset_mode=fashion --dataroot=./dataset/fashion
Stage 2:  the same with --model=pose --continue_train
"""

if __name__ == "__main__":  # so that errors and Ctrl-C within the imports below are told in a line
    from util.command_line import run_program

    run_program("train")

import argparse
import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Subset
from tqdm import tqdm

from data import create_dataset, create_loader
from models import create_model, find_model
from models.base_model import BaseModel, Batch, NonFiniteError
from models.checkpoints import TrainingStart, load_for_training, save_model
from models.evaluation import evaluate, spread_indices
from models.pictures import panels_of
from options.base_options import network_record, parse_train_options
from options.run_record import changes, option_texts
from util.checkpoints import write_tensors
from util.device import set_up_device
from util.errors import UserError, is_out_of_memory
from util.files import remove_leftovers
from util.layout import sheet
from util.run.clock import Clock
from util.run.display import Display, create_display
from util.run.folder import (
    check_fresh_start,
    check_owner,
    drop_old_checkpoints,
    kept_label,
    prepare_folder,
    run_folder,
)
from util.run.lock import RunLock
from util.run.log import RunLog
from util.run.stopping import StopRequest

SNAPSHOT_ROWS = 4


class Trainer:
    """One training run: the constructor sets up and loads, `run` trains.

    Args:
        options: parsed options of train.py.

    Raises:
        UserError: what cannot be trained; nothing of an earlier run has been touched.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = run_folder(options)
        model = find_model(options.model)
        earlier_stage = model.earlier_stage
        check_fresh_start(options, earlier_stage)
        if options.continue_train:
            check_owner(options, earlier_stage)
        set_up_device(options)
        seed_everything(options.seed, 0)
        self.dataset = create_dataset(options, pose_mask=model.needs_body_mask)
        self.model = create_model(options)
        for line in self.model.notes(options):
            print(line)
        if options.batchSize > len(self.dataset):
            print(f"--batchSize={options.batchSize}: batches have all {len(self.dataset)} pairs")
        self.lock = RunLock(self.folder)
        try:
            # What the data order and all random numbers follow from.
            settings = {
                "--seed": options.seed,
                "--batchSize": options.batchSize,
                "--serial_batches": options.serial_batches,
                "pairs": len(self.dataset),
            }
            self.start, self.changes = TrainingStart([]), []
            if options.continue_train or options.init_from:
                folder, label = self._checkpoint()
                self.start = load_for_training(self.model, folder, label)
                self.changes = changes(options, settings, self.start, folder)
                print("\n".join([*self.start.lines, *self.changes]))
            done = self.start.iteration or options.iter_count - 1
            self.iteration = done  # the last finished one
            self.first_iteration = done + 1
            if options.iter_count not in (1, self.first_iteration):
                print(
                    f"--iter_count={options.iter_count} has no effect: the checkpoint is of "
                    f"iteration {done}, {self.first_iteration} is the next one"
                )
            self.last_iteration = options.niter + options.niter_decay
            if self.first_iteration > self.last_iteration:
                raise UserError(
                    f"--niter: iteration {self.first_iteration} is the next one, but --niter and "
                    f"--niter_decay end the training after {self.last_iteration}; raise --niter"
                )
            self.evaluation = make_evaluation(options, self.model)
            self.loader = create_loader(
                self.dataset,
                options.batchSize,
                training=True,
                workers=options.nThreads,
                seed=options.seed,
                shuffle=not options.serial_batches,
                start_iteration=done,
                device=self.model.device,
            )
        except BaseException:
            self.lock.release()
            raise
        self.saves = Saves(self.model, options, self.folder, done, settings)
        self.nonfinite = self.nonfinite_in_a_row = 0

    def run(self) -> int:
        """Train to the end, or until Ctrl-C or SIGTERM, which save first.

        Returns:
            The exit code: 0, 130 after Ctrl-C, 143 after SIGTERM.

        Raises:
            UserError: what stops the training; what was trained until then is saved, if possible.
        """
        with self.lock, StopRequest() as stop, contextlib.ExitStack() as opened:
            batches = iter(self.loader)
            # Before anything is written or moved: it shows whether there is anything to train on.
            batches = itertools.chain([next(batches)], batches)
            if stop:
                print("stopped before the first iteration: nothing has been changed")
                return stop.exit_code
            log, display = self._open_records()
            opened.callback(display.close)
            about = (
                f"training {self.options.model} on {len(self.dataset)} pairs, iterations "
                f"{self.first_iteration} to {self.last_iteration}; records in {self.folder}"
            )
            print(about)
            display.text(about)
            bar = opened.enter_context(
                tqdm(
                    total=self.last_iteration,
                    initial=self.iteration,
                    desc=self.options.model,
                    unit="it",
                    disable=None,
                )
            )
            try:
                self._train(batches, stop, log, display, bar)
            except Exception as error:  # what was trained is kept
                # Of an image that cannot be read, say. A defect may have spoiled the weights.
                if not isinstance(error, UserError) and not is_out_of_memory(error):
                    raise
                try:
                    self.saves.finish(self.iteration)
                    if self.iteration >= self.first_iteration:
                        tqdm.write(f"saved: the weights after iteration {self.iteration}")
                except UserError as failure:
                    tqdm.write(f"NOT SAVED at iteration {self.iteration}: {failure}")
                raise
            except SystemExit:
                tqdm.write(f"stopped at once; saved until iteration {self.saves.newest}")
                raise
            self.saves.finish(self.iteration)
            if not self.options.no_html:
                log.write_page()
        self._say_end(stop)
        return stop.exit_code

    def _train(
        self, batches: Iterator[Batch], stop: StopRequest, log: RunLog, display: Display, bar: tqdm
    ) -> None:
        options, model, clock = self.options, self.model, Clock(self.iteration)
        stage = None
        while self.iteration < self.last_iteration and not stop:
            iteration = self.iteration + 1
            if model.stage(iteration) != stage:
                stage = model.stage(iteration)
                bar.set_description(f"{options.model}, stage {stage}")
                tqdm.write(f"iteration {iteration}: stage {stage} of the training")

            with clock.waiting():
                batch = next(batches)

            model.set_learning_rates(learning_rate_factor(options, iteration), iteration)
            seed_everything(options.seed, iteration)
            try:
                losses = model.step(batch, iteration)
                self.nonfinite_in_a_row = 0
            except NonFiniteError as error:
                self._skip_nonfinite(iteration, batch, error)
                losses = None
            bar.update()

            if losses and clock.bar_is_due():
                bar.set_postfix_str(short_losses(losses))
            if losses and self._is_due(iteration, options.print_freq):
                seconds, waited = clock.read(iteration)
                values = {name: value.item() for name, value in losses.items()}
                rate = next(iter(model.optimizers.values())).param_groups[0]["lr"]
                epoch = self.loader.batch_sampler.epoch_of(iteration - 1) + 1
                line = log.losses(epoch, iteration, seconds, values, rate, waited, stage)
                if bar.disable:  # no terminal: plain lines in place of the bar
                    print(line, flush=True)

            self.iteration = iteration
            with clock.paused():
                if iteration % options.save_iters_freq == 0 and self.saves.save(
                    iteration, iteration
                ):
                    drop_old_checkpoints(self.folder, options.keep_checkpoints, iteration)
                if iteration % options.save_latest_freq == 0:
                    self.saves.save("latest", iteration)
                if not stop:
                    self._show(iteration, batch, log, display)
                    self._evaluate(iteration, stop, log)

    def _checkpoint(self) -> tuple[Path, str]:
        """Folder and label of the checkpoint to start from."""
        options = self.options
        if not options.init_from:
            return self.folder, options.which_iter
        name, label = options.init_from
        folder = Path(options.checkpoints_dir) / name
        if not folder.is_dir():
            raise UserError(f"--init_from: there is no run {folder}; check --checkpoints_dir")
        stages = (self.model.earlier_stage, options.model)
        kept = next(filter(None, (kept_label(folder, stage) for stage in stages)), None)
        return folder, label or kept or "latest"

    def _open_records(self) -> tuple[RunLog, Display]:
        """Make the run's folder, an earlier one being moved aside, and begin the records in it."""
        options = self.options
        prepare_folder(options, network_record(options), self.start.earlier_model)
        remove_leftovers(self.folder, ".pth")
        stops_at_failure = options.save_failure == "stop"
        log = RunLog(self.folder, options.model, stops_at_failure=stops_at_failure)
        display = create_display(options, self.folder, log.history, self.first_iteration)
        log.display = display
        for line in self.changes:
            log.note(line)
        return log, display

    def _skip_nonfinite(self, iteration: int, batch: Batch, error: NonFiniteError) -> None:
        """Count an iteration without a step; raise UserError when it was one too many."""
        what = f"iteration {iteration}: {error}: NaN or infinite"
        self.nonfinite_in_a_row += 1
        if self.nonfinite_in_a_row <= self.options.skip_nonfinite:
            self.nonfinite += 1
            tqdm.write(f"{what}; skipped; the batch: {', '.join(_pairs(batch))}")
            return
        loaded = ""
        if self.start.networks and iteration == self.first_iteration:
            loaded = "take another checkpoint (--which_iter), whose weights these are, "
        path = self.folder / f"nonfinite_{iteration}_batch.pth"
        write_tensors(path, dict(batch))
        raise UserError(
            f"{what}; the batch is in {path}: "
            f"{', '.join(_pairs(batch))}: {loaded}look at those images, lower --lr, or skip up to "
            "N such iterations in a row with --skip_nonfinite=N"
        )

    def _show(self, iteration: int, batch: Batch, log: RunLog, display: Display) -> None:
        options = self.options
        is_shown = display.shows_pictures or not options.no_html
        if is_shown and self._is_due(iteration, options.display_freq):
            small = {key: value[:SNAPSHOT_ROWS] for key, value in batch.items()}
            panels = panels_of(small, self.model.predict(small))
            if not options.no_html:
                log.snapshot(iteration, sheet(panels))
            display.pictures(iteration, panels, _pairs(small))

    def _evaluate(self, iteration: int, stop: StopRequest, log: RunLog) -> None:
        if not self.evaluation or not self._is_due(iteration, self.options.eval_iters_freq):
            return
        try:
            scores = self.evaluation(stop)
        except UserError as error:  # a bad test image is no reason to lose a training run
            tqdm.write(f"no evaluation at iteration {iteration}: {error}")
            return
        if scores is not None:
            tqdm.write(f"test pairs {log.scores(iteration, scores)}")

    def _is_due(self, iteration: int, frequency: int) -> bool:
        return iteration % frequency == 0 or iteration == self.last_iteration

    def _say_end(self, stop: StopRequest) -> None:
        if self.dataset.skipped_reads:
            print(f"--skip_bad_samples replaced {self.dataset.skipped_reads} pairs, named above")
        if self.nonfinite:
            print(f"--skip_nonfinite skipped {self.nonfinite} iterations, named above")
        if stop:
            options = self.options
            # With another label than latest the same command would go back again.
            is_same = options.continue_train and options.which_iter == "latest"
            same = "the same command" if is_same else "--continue_train"
            starts = {"init_from": None, "from_scratch": False, "which_iter": "latest"}
            for name in (name for name, usual in starts.items() if vars(options)[name] != usual):
                same += f" without --{name}"
            print(f"stopped after iteration {self.iteration}, saved; {same} goes on from there")
        else:
            print(f"done: {self.iteration} iterations, checkpoint {self.folder}/latest_net_*.pth")


class Saves:
    """The checkpoints of a run, and what was saved when.

    Args:
        model: to save.
        options: parsed options of train.py.
        folder: of the run.
        iteration: the one that the run starts from.
        settings: what the data order and all random numbers follow from, kept with each state.
    """

    def __init__(
        self,
        model: BaseModel,
        options: argparse.Namespace,
        folder: Path,
        iteration: int,
        settings: Mapping[str, object],
    ) -> None:
        self.newest = iteration  # of the newest `latest`
        self._model = model
        self._folder = folder
        self._stops_at_failure = options.save_failure == "stop"
        self._record = {**settings, "options": option_texts(options)}

    def save(self, label: str | int, iteration: int) -> bool:
        """Save a checkpoint; False where that failed and --save_failure=continue."""
        try:
            save_model(self._model, self._folder, label, iteration, self._record)
        except UserError as error:
            if self._stops_at_failure:
                raise
            tqdm.write(
                f"NOT SAVED at iteration {iteration}: {error}; the checkpoint of iteration "
                f"{self.newest} stays, training goes on (--save_failure=stop would end it)"
            )
            return False
        if label == "latest":
            self.newest = iteration
        return True

    def finish(self, iteration: int) -> None:
        """Save what is not saved yet. Raises UserError where that fails."""
        if self.newest != iteration:
            save_model(self._model, self._folder, "latest", iteration, self._record)
            self.newest = iteration


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


def seed_everything(seed: int, iteration: int) -> None:
    """Set every global random state to what (seed, iteration) gives, so that no file need keep it.

    Those of Python, NumPy and torch, on all devices. The data order and the augmentation follow
    from (seed, epoch, item) in the same way: a resumed run draws what the run in one go drew.
    """
    # torch's CPU generator keeps 32 bits of its seed, so all of the pair must reach every bit.
    python, numpy, pytorch = np.random.SeedSequence(seed, spawn_key=(iteration,)).spawn(3)
    random.seed(int(python.generate_state(1, np.uint64)[0]))
    np.random.seed(numpy.generate_state(8))
    torch.manual_seed(int(pytorch.generate_state(1)[0]))


def make_evaluation(
    options: argparse.Namespace, model: BaseModel
) -> Callable[[StopRequest], dict[str, float] | None] | None:
    """A function that scores the model on test pairs, or None where there are none to score on.

    The function gives None when it was asked to stop.
    """
    if not options.eval_iters_freq:
        return None
    try:
        dataset = create_dataset(options, phase="test")
    except UserError as error:
        print(f"no evaluation during training: {error}")
        return None
    pairs = Subset(dataset, spread_indices(len(dataset), options.eval_pairs))

    def run(stop: StopRequest) -> dict[str, float] | None:
        loader = create_loader(
            pairs, options.batchSize, training=False, workers=options.nThreads, device=model.device
        )
        return evaluate(model.predict, loader, should_stop=lambda: bool(stop))

    return run


def short_losses(losses: Mapping[str, torch.Tensor]) -> str:
    """The losses that count, for the bar's one line: those below 0.005 are left out."""
    values = {name.removesuffix("_gen"): value.item() for name, value in losses.items()}
    return " ".join(f"{name} {value:.2f}" for name, value in values.items() if abs(value) >= 0.005)


def _pairs(batch: Batch) -> list[str]:
    """Names of the pairs of a batch."""
    pairs = zip(batch["P1_path"], batch["P2_path"], strict=True)
    return [f"{Path(source).name} to {Path(target).name}" for source, target in pairs]


def main() -> int:
    """Read the command line and train."""
    return Trainer(parse_train_options()).run()
