"""The weights of one network, in whatever others save them.

Trainers wrap them: in dictionaries beside optimisers, counters and other networks (`state_dict`,
`net_G`), and in prefixes of their names (`module.`, `_orig_mod.`, `net_G.`).
"""

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from util.errors import UserError

# Parts of names that DataParallel, torch.compile, FSDP and activation checkpointing put in.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_COUNTERS = {"n_averaged"}  # of torch.optim.swa_utils.AveragedModel, no weight
_DEEPEST = 4
_MOST = 1000  # dictionaries of one file that are looked through
_MOST_SHARED = 16  # names by which the same numbers go, on average; tied weights have two
_PREFIXES = 16  # of one dictionary that may be the network; those with most of its names
_SHOWN = 8


@dataclass
class StateDict:
    """A network's weights and where they were found.

    Attributes:
        tensors: by name.
        place: keys and prefix under which they were, such as `state_dict, net_G.`; empty at the
            top.
        others: keys or prefixes beside that one, under which nothing was taken.
    """

    tensors: dict[str, Tensor]
    place: str
    others: list[str]

    def described(self, source: str) -> str:
        """`source` with the place in it, for reports and messages."""
        text = f"{source} ({self.place})" if self.place else source
        if self.others:
            text += f", without what is under {_shown(self.others)}"
        return text


@dataclass
class _Candidate:
    keys: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    others: list[str]  # what lies beside it
    fitting: int = 0  # tensors whose name and shape the network has

    @property
    def place(self) -> str:
        return ", ".join(filter(None, (*self.keys, self.prefix)))


def converted(value: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """A tensor out of a file as the type that takes it.

    Args:
        value: any tensor.
        dtype: of the network's own; numbers with a fraction stay such, whole ones whole.
        name: for messages.

    Raises:
        ValueError: a tensor of another kind; NaN, infinity, or numbers that the type cannot hold.
    """
    if value.is_complex() or value.is_floating_point() != dtype.is_floating_point:
        raise ValueError(f"{name} holds numbers of {value.dtype}, {dtype} was expected")
    result = value.to(dtype)
    if not result.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinite numbers, or some beyond {dtype}")
    return result


def find_state_dict(
    content: object, source: str, wanted: Mapping[str, Tensor] | None = None
) -> StateDict:
    """Find the weights of one network in what a file holds.

    Args:
        content: as read.
        source: the file, for messages.
        wanted: the network's own tensors. Without them there must be only one to be found.

    Raises:
        UserError: no tensors at all, or those of several networks that would do.
    """
    # A network of which such a part is a real one keeps it.
    wrappers = _WRAPPERS - {part for name in wanted or () for part in name.split(".")}
    found = [one for one in _nested(content, source, wrappers, set()) if one.tensors]
    if not found:
        raise UserError(
            f"{source} holds no state dict (names and tensors){_keys_there(content)}: is it a "
            "network checkpoint?"
        )
    if wanted is not None:
        parts: dict[str, list[str]] = {}
        for name in wanted:
            for end in _starts_of_parts(name):
                parts.setdefault(name[:end], []).append(name)
        found = [part for one in found for part in _by_prefix(one, wanted, parts)]
        for candidate in found:
            candidate.fitting = sum(
                name in wanted and value.shape == wanted[name].shape
                for name, value in candidate.tensors.items()
            )
        best = max(found, key=lambda one: (one.fitting, len(one.tensors.keys() & wanted.keys())))
        # Averaged weights may lack a few of the others.
        found = [one for one in found if 2 * one.fitting > best.fitting] or [best]
        if not best.tensors.keys() & wanted.keys():
            found = [max(found, key=lambda one: len(one.tensors))]  # the caller says what is wrong
    if len(found) > 1:
        raise UserError(_choice(found, source))
    (chosen,) = found
    return StateDict(chosen.tensors, chosen.place, chosen.others)


def _nested(
    content: object,
    source: str,
    wrappers: set[str],
    seen: set[int],
    keys: tuple[str, ...] = (),
    others: tuple[str, ...] = (),
) -> Iterator[_Candidate]:
    """Every dictionary of named values, with the keys that lead to it; each once."""
    # The states of optimisers have numbers for names.
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    if id(content) in seen:
        return
    seen.add(id(content))
    if len(seen) > _MOST:
        raise UserError(f"{source} holds more than {_MOST} dictionaries: give the weights alone")
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    plain: dict[str, Tensor] = {}
    for name, value in tensors.items():
        short = ".".join(part for part in name.split(".") if part not in wrappers)
        if short in plain:
            raise UserError(f"{source} holds '{short}' twice, with and without a wrapper's name")
        if short not in _COUNTERS:
            plain[short] = value
    _check_shared(plain, source)
    yield _Candidate(keys, "", plain, list(others))
    if len(keys) < _DEEPEST:
        for key, value in content.items():
            if not isinstance(value, Mapping):
                continue
            beside = islice((other for other in content if other != key), _SHOWN + 1)
            yield from _nested(value, source, wrappers, seen, (*keys, key), (*others, *beside))


def _check_shared(tensors: dict[str, Tensor], source: str) -> None:
    """Whoever goes through all tensors is to come to an end in the time that the file's size
    lets expect."""
    storages = [value.untyped_storage() for value in tensors.values()]
    held = sum({one.data_ptr(): one.nbytes() for one in storages}.values())
    if sum(value.nbytes for value in tensors.values()) > _MOST_SHARED * held:
        raise UserError(
            f"{source} holds the same numbers under more than {_MOST_SHARED} names: give the "
            "weights alone"
        )


def _by_prefix(
    candidate: _Candidate, wanted: Mapping[str, Tensor], parts: Mapping[str, list[str]]
) -> Iterator[_Candidate]:
    """The candidate itself, its parts that look like the network, and it as a part of that.

    Args:
        candidate: a dictionary of named tensors.
        wanted: the network's own tensors.
        parts: their names by each prefix.
    """
    yield candidate
    deepest = max((name.count(".") for name in wanted), default=0)
    counts = Counter(
        name[:end]
        for name in candidate.tensors
        for end in _starts_of_parts(name, deepest + 1)
        if name[end:] in wanted
    )
    for prefix, hits in counts.most_common(_PREFIXES):
        tensors = {
            name.removeprefix(prefix): value
            for name, value in candidate.tensors.items()
            if name.startswith(prefix)
        }
        # Parts of another network have a few names in common with this one.
        if 2 * hits > len(wanted) or hits == len(tensors):
            outside = (name for name in candidate.tensors if not name.startswith(prefix))
            beside = list(dict.fromkeys(name.partition(".")[0] for name in outside))
            yield _Candidate(candidate.keys, prefix, tensors, [*candidate.others, *beside])
    if candidate.tensors.keys() & wanted.keys():
        return
    # Of a part that was saved by itself, such as VGG's features, the names lack the part's.
    for prefix, names in parts.items():
        if names[0].removeprefix(prefix) not in candidate.tensors:  # few go on from here
            continue
        tensors = {f"{prefix}{name}": value for name, value in candidate.tensors.items()}
        if all(name in tensors and tensors[name].shape == wanted[name].shape for name in names):
            yield _Candidate(candidate.keys, "", tensors, candidate.others)


def _starts_of_parts(name: str, most: int = 99) -> list[int]:
    """Where the parts of a name begin, from its end on; only the first is left out."""
    starts, dot = [], len(name)
    while len(starts) < most and (dot := name.rfind(".", 0, dot)) >= 0:
        starts.append(dot + 1)
    return starts


def _keys_there(content: object) -> str:
    if not isinstance(content, Mapping) or not content:
        return ""
    return f" under its keys {_shown([str(key) for key in content])}"


def _shown(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def _choice(found: list[_Candidate], source: str) -> str:
    """Say which there are, and how to make a file of one of them."""
    example = found[-1]
    # (JSON's quotes need no escapes within those of a shell.)
    taken = "".join(f"[{json.dumps(key)}]" for key in example.keys)
    code = f"torch.load({json.dumps(source)}, weights_only=True){taken}"
    if example.prefix:
        code = f"{{k: v for k, v in {code}.items() if {json.dumps(example.prefix)} in k}}"
    command = shlex.join(["python", "-c", f'import torch; torch.save({code}, "one.pth")'])
    places = " and under ".join(
        f"'{one.place}'" if one.place else "no key" for one in found[-_SHOWN:]
    )
    return (
        f"{source} holds several networks that would do, under {places}: make a file of the one to "
        f"use and put it in its place, such as: {command}"
    )
