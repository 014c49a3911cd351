"""Numbers of a step."""

import torch

from trainhooks import calculate_metrics_from_step, samples_per_second, tokens_per_second


def test_tensors_come_back_detached_and_unread() -> None:
    weight = torch.ones((), requires_grad=True)
    loss = weight * 2
    value, parts, rate = calculate_metrics_from_step(loss, loss_dict={"ce": loss * 0.5, "n": 3})
    assert isinstance(value, torch.Tensor)
    assert not value.requires_grad
    assert value.data_ptr() == loss.data_ptr()
    assert isinstance(parts["ce"], torch.Tensor)
    assert not parts["ce"].requires_grad
    assert (parts["n"], rate) == (3, None)


def test_as_float_gives_floats() -> None:
    value, parts, _ = calculate_metrics_from_step(torch.tensor(2.0), {"ce": torch.tensor(1.5)}, as_float=True)
    assert (value, parts) == (2.0, {"ce": 1.5})
    assert type(value) is float


def test_learning_rate_of_a_scheduler_or_an_optimizer() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    assert calculate_metrics_from_step(1.0, scheduler=scheduler)[2] == 0.5
    assert calculate_metrics_from_step(1.0, scheduler=optimizer)[2] == 0.5


def test_throughput() -> None:
    assert samples_per_second(64, 2.0) == 32.0
    assert tokens_per_second(64, 512, 2.0) == 16_384.0
    assert samples_per_second(64, 0.0) == 0.0
