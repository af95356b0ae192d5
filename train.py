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
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from data import create_dataset, create_loader
from models import create_model, find_model
from models.base_model import Batch, NonFiniteError
from models.checkpoints import Saves, TrainingStart, load_for_training
from models.evaluation import make_evaluation
from models.pictures import panels_of
from models.schedule import learning_rate_factor, seed_everything
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
        with contextlib.ExitStack() as held:
            if not options.dry_run:
                held.enter_context(RunLock(self.folder))
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
            record = {**settings, "options": option_texts(options)}
            stops_at_failure = options.save_failure == "stop"
            self.saves = Saves(self.model, self.folder, done, record, stops_at_failure)
            self.nonfinite = self.nonfinite_in_a_row = 0
            self.held = held.pop_all()  # the lock, until the training ends

    def describe(self) -> int:
        """Print what would be trained; returns the exit code."""
        for name, network in self.model.networks.items():
            count = sum(parameter.numel() for parameter in network.parameters())
            print(f"network {name}: {count:,} parameters, on {self.model.device}")
        print(f"data: {len(self.dataset)} pairs of {self.dataset.pairs_path}")
        print(
            f"iterations {self.first_iteration} to {self.last_iteration} of "
            f"{self.loader.batch_sampler.batch_size} pairs; records would be in {self.folder}"
        )
        return 0

    def run(self) -> int:
        """Train to the end, or until Ctrl-C or SIGTERM, which save first.

        Returns:
            The exit code: 0, 130 after Ctrl-C, 143 after SIGTERM.

        Raises:
            UserError: what stops the training; what was trained until then is saved, if possible.
        """
        with self.held, StopRequest() as stop, contextlib.ExitStack() as opened:
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
            scores = self.evaluation(lambda: bool(stop))
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


def short_losses(losses: Mapping[str, torch.Tensor]) -> str:
    """The losses that count, for the bar's one line: those below 0.005 are left out."""
    values = {name.removesuffix("_gen"): value.item() for name, value in losses.items()}
    return " ".join(f"{name} {value:.2f}" for name, value in values.items() if abs(value) >= 0.005)


def _pairs(batch: Batch) -> list[str]:
    """Names of the pairs of a batch."""
    pairs = zip(batch["P1_path"], batch["P2_path"], strict=True)
    return [f"{Path(source).name} to {Path(target).name}" for source, target in pairs]


def main() -> int:
    """Read the command line and train, or say what would be trained."""
    options = parse_train_options()
    trainer = Trainer(options)
    return trainer.describe() if options.dry_run else trainer.run()
