"""A training step counts whole or not at all: memory that runs out, or NaN, in either half."""

import copy

import pytest
import torch

from models.base_model import NonFiniteError
from models.schedule import seed_everything
from options.base_options import parse_train_options
from tests.programs.test_reliability import FLOW, PG2, POSE, checkpoint, places, succeed
from tests.support.helpers import run_here, same
from train import Trainer

STEPS = {  # options, the iteration, and the optimisers that step in it, in their order
    "pg2, stage 1": (PG2, 2, ["G1"]),
    "pg2, first of stage 2": (PG2, 6, ["G2", "D"]),
    "pg2, stage 2": (PG2, 8, ["G2", "D"]),
    "poseflownet": ([*FLOW, "--use_spect_g"], 2, ["G"]),
    "pose, first": ([*POSE, "--use_spect_g"], 1, ["D", "G"]),
    "pose": ([*POSE, "--use_spect_g"], 2, ["D", "G"]),
    "pose, unfused": ([*POSE, "--fused_optimizer=off"], 2, ["D", "G"]),
}


def everything(model):
    """Copies of all that a checkpoint holds, and of what no checkpoint should notice."""
    return copy.deepcopy(
        {
            "networks": {key: dict(net.state_dict()) for key, net in model.networks.items()},
            "optimizers": {key: value.state_dict() for key, value in model.optimizers.items()},
            "saved": model.networks_to_save(),
        }
    )


@pytest.mark.parametrize("case", STEPS)
@pytest.mark.parametrize("place", ["before its step", "within its step", "NaN"])
def test_a_step_that_fails_anywhere_changes_nothing(tiny_market, tmp_path, case, place):
    """In each half: no network is a step ahead, spectral norm's vectors and averages included."""
    arguments, iteration, names = STEPS[case]
    run = Trainer(parse_train_options([*arguments, *places(tiny_market, tmp_path), "--niter=9"]))
    batches, model = iter(run.loader), run.model
    for number in range(1, iteration):
        model.step(next(batches), number)
    batch = next(batches)
    for name in names:
        before = everything(model)
        optimizer = model.optimizers[name]
        if place == "NaN":
            parameter = next(iter(model.networks[name].parameters()))
            parameter.requires_grad_(True)  # the step before may have frozen it
            hook = parameter.register_hook(lambda gradient: gradient * float("nan"))
            with pytest.raises(NonFiniteError):
                model.step(batch, iteration)
            hook.remove()
        else:
            step = type(optimizer).step

            def failing_step(*arguments, name=name, step=step):
                if arguments[0] is model.optimizers[name]:
                    if place == "within its step":  # the averages are there, not all of the rest
                        step(*arguments)
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return step(*arguments)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(optimizer), "step", failing_step)
                with pytest.raises(torch.OutOfMemoryError):
                    model.step(batch, iteration)
        after = everything(model)
        if place == "within its step" and name == names[-1]:
            # Of the last one nothing is kept, see BaseModel.update; but it is no step ahead.
            for kept in ("networks", "optimizers"):
                del before[kept][name], after[kept][name]
        assert same(after, before), name
    if place != "within its step":  # and the step can be taken after all
        seed_everything(0, iteration)
        model.step(batch, iteration)
        for name in names:
            assert not same(everything(model)["networks"][name], before["networks"][name]), name


@pytest.mark.parametrize(
    ("arguments", "iteration", "name"),
    [(POSE, 2, "G"), ([*PG2, "--stage1_steps=2"], 3, "D"), ([*PG2, "--stage1_steps=2"], 5, "D")],
    ids=["pose", "pg2, first of stage 2", "pg2, stage 2"],
)
def test_memory_that_runs_out_between_two_halves_loses_nothing(
    tiny_market, tmp_path, arguments, iteration, name
):
    """What is saved then is the undisturbed run's, and so is what comes of it."""
    arguments = ["train.py", *arguments, *places(tiny_market, tmp_path / "cut")]
    run = Trainer(parse_train_options([*arguments[1:], "--niter=9"]))
    update = run.model.update

    def update_without_memory(which, *rest, **named):
        if run.iteration == iteration - 1 and which == name:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        update(which, *rest, **named)

    run.model.update = update_without_memory
    with pytest.raises(torch.OutOfMemoryError):
        run.run()
    whole = [*arguments[:-1], f"--checkpoints_dir={tmp_path / 'whole'}"]
    folders = [tmp_path / place / "person" for place in ("cut", "whole")]
    succeed(run_here(*whole, f"--niter={iteration - 1}"))
    assert same(*map(checkpoint, folders))
    for command in (arguments, whole):
        succeed(run_here(*command, f"--niter={iteration + 1}", "--continue_train"))
    assert same(*map(checkpoint, folders))


def test_a_skipped_iteration_counts_for_neither_half(tiny_market, tmp_path):
    """--skip_nonfinite goes on from the weights before it, for D as for G."""
    arguments = [*POSE, *places(tiny_market, tmp_path), "--skip_nonfinite=1", "--niter=3"]
    run = Trainer(parse_train_options(arguments))
    states, step = [], run.model.step

    def spoilt_step(batch, iteration):
        parameter, hooks = next(iter(run.model.networks["G"].parameters())), []
        if iteration == 2:
            hooks.append(parameter.register_hook(lambda gradient: gradient * float("inf")))
        states.append(everything(run.model))
        try:
            return step(batch, iteration)
        finally:
            for hook in hooks:
                hook.remove()

    run.model.step = spoilt_step
    assert run.run() == 0 and run.nonfinite == 1
    assert not same(states[0], states[1]) and same(states[1], states[2])
    assert not same(states[2], everything(run.model))
