"""What no state_dict holds: which parameters are trained, which modules evaluate, what a group is made of."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from trainhooks.errors import StateUnsupported
from trainhooks.pytorch.checkpoint import wrapper
from trainhooks.pytorch.checkpoint.wrapper import Walked


def of_module(walked: Walked) -> dict[str, Any]:
    """Return the frozen parameters and the modules in evaluation mode, by plain name; only what is not usual."""
    frozen = [name for name, parameter in walked.parameters if not parameter.requires_grad]
    evaluating = [name for name, each in walked.modules if not each.training and wrapper.inner_name(each) is None]
    return {"frozen": frozen, "evaluating": evaluating}


def groups_of(optimizer: Optimizer, names: Mapping[int, str]) -> list[list[str | None]]:
    """Return the parameters of each group by `OBJECT.NAME`; None for one that no module in `state=` has.

    Args:
        names: from `names_of`.
    """
    return [[names.get(id(parameter)) for parameter in group["params"]] for group in optimizer.param_groups]


def put_module(module: torch.nn.Module, saved: Mapping[str, Any]) -> list[str]:
    """Freeze, thaw and set modes as saved; returns a sentence for each kind of thing that was changed."""
    if "frozen" not in saved:
        return []  # of a release before
    frozen, evaluating = set(saved["frozen"]), set(saved["evaluating"])
    changed, modes = [], 0
    for name, parameter in wrapper.named_parameters(module):
        if parameter.requires_grad is (name in frozen):
            parameter.requires_grad_(name not in frozen)
            changed.append(name)
    for name, each in module.named_modules():
        plain = wrapper.plain_name(module, name)
        if wrapper.inner_name(each) is None and each.training is (plain in evaluating):
            each.training = plain not in evaluating
            modes += 1
    said = []
    if changed:
        said.append(f"requires_grad of {len(changed)} parameters is as it was saved, {changed[0]} among them")
    if modes:
        said.append(f"train() or eval() of {modes} modules is as it was saved")
    return said


def misfits(module: torch.nn.Module, saved: Mapping[str, Any]) -> list[str]:
    """Return the parameters whose `requires_grad` differs, for a module that is wrapped already: too late to set."""
    if "frozen" not in saved:
        return []
    frozen = set(saved["frozen"])
    return [name for name, parameter in wrapper.named_parameters(module) if parameter.requires_grad is (name in frozen)]


def missing_groups(
    optimizer: Optimizer, saved: list[list[str | None]], objects: Mapping[str, Any]
) -> list[list[torch.Tensor]]:
    """Return the parameters of the groups that were added after the optimizer had been built, in their order.

    Raises:
        StateUnsupported: a group's parameters have no names in `state=`, or are in another group by now. Shapes prove
            nothing: two parameters of one shape would change their moments.
    """
    live = groups_of(optimizer, names_of(wrapper.parameters_of(objects)))
    if len(saved) <= len(live) or live != saved[: len(live)]:
        return []
    by_name = dict(wrapper.parameters_of(objects))
    taken = {name for group in live for name in group}
    added: list[list[torch.Tensor]] = []
    for group in saved[len(live) :]:
        unknown = [name for name in group if name is None or name not in by_name or name in taken]
        if unknown:
            raise StateUnsupported(
                "A parameter group was added after the optimizer was built, and"
                f" {unknown[0] or 'one of its parameters'} cannot be found again.",
                hint="Give the module that owns it in state=, or add the group before the session is opened:"
                " trainhooks.peek(output_dir) shows the step and the groups.",
                code="state_differs",
            )
        added.append([by_name[name] for name in group if name is not None])
    return added


def names_of(parameters: Iterable[tuple[str, torch.Tensor]]) -> dict[int, str]:
    """Return the name of each parameter by its id; of one that has two, the last."""
    return {id(parameter): name for name, parameter in parameters}
