"""Push and pull against loops over images, people and joints."""

from __future__ import annotations

import pytest
import torch

from swahr.losses.associative import associative_loss
from tests.oracles import losses as oracle


def make_people(
    people: int, batch: int = 3, num_joints: int = 4, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    """Tags (batch, 4, 5, 5) and people with absent joints, some without any joint; the last image
    has no people.
    """
    generator = torch.Generator().manual_seed(seed)
    tags = torch.randn(
        batch, num_joints, 5, 5, generator=generator, dtype=torch.float64
    ).requires_grad_()
    index = torch.randint(0, num_joints * 25, (batch, people, num_joints), generator=generator)
    present = torch.rand(index.shape, generator=generator) < 0.5
    present[:, 1::3] = False
    present[-1] = False
    return tags, torch.where(present, index, 0), present


@pytest.mark.parametrize("push_kind", ["exp", "max"])
@pytest.mark.parametrize("people", [1, 2, 31, 300])
def test_values_and_gradients_equal_the_loops(people: int, push_kind: str) -> None:
    tags, index, present = make_people(people, batch=2 if people == 300 else 3)
    got = associative_loss(tags, index, present, push_kind)
    want = oracle.associative_loss(tags, index, present, push_kind)
    torch.testing.assert_close(got, want)
    gradients = [
        torch.autograd.grad(push.sum() - 2 * (pull * pull).sum(), tags)[0]
        for push, pull in (got, want)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("push_kind", ["exp", "max"])
def test_gradcheck(push_kind: str) -> None:
    tags, index, present = make_people(5)
    assert torch.autograd.gradcheck(
        lambda t: associative_loss(t, index, present, push_kind), (tags,)
    )


@pytest.mark.parametrize("push_kind", ["exp", "max"])
@pytest.mark.parametrize("people", [0, 1, 4])
def test_no_people_give_zero_and_a_zero_gradient(people: int, push_kind: str) -> None:
    tags = torch.randn(2, 3, 4, 4, requires_grad=True)
    nobody = torch.zeros(2, people, 3, dtype=torch.int64)
    push, pull = associative_loss(tags, nobody, nobody.bool(), push_kind)
    assert push.tolist() == pull.tolist() == [0, 0]
    (push + pull).sum().backward()
    assert tags.grad is not None and not tags.grad.any()


def test_by_hand() -> None:
    """Two people: tags 0 and 2 (mean 1, pull 1), and a single tag 1.5 (pull 0)."""
    tags = torch.tensor([0.0, 2.0, 1.5, 9.0]).view(1, 1, 2, 2)
    index = torch.tensor([[[0, 1], [2, 0]]])
    present = torch.tensor([[[True, True], [True, False]]])
    push, pull = associative_loss(tags, index, present, "exp")
    assert pull.item() == 0.5 and push.item() == pytest.approx(
        0.5 * torch.exp(torch.tensor(-0.25)).item()
    )
    assert associative_loss(tags, index, present, "max")[0].item() == 0.25


def test_images_of_a_batch_are_independent_and_padding_does_not_count() -> None:
    tags, index, present = make_people(6)
    whole = torch.stack(associative_loss(tags, index, present))
    alone = [
        torch.stack(associative_loss(tags[i : i + 1], index[i : i + 1], present[i : i + 1]))
        for i in range(3)
    ]
    torch.testing.assert_close(whole, torch.cat(alone, 1))
    padded = (torch.nn.functional.pad(part, (0, 0, 0, 5)) for part in (index, present))
    torch.testing.assert_close(torch.stack(associative_loss(tags, *padded)), whole)


def test_tags_of_absent_joints_are_not_read() -> None:
    tags, index, present = make_people(6)
    broken = tags.detach().clone()
    broken[-1] = float("nan")
    broken[0, 0, 0, 0] = float("inf")
    present = present & ((index > 0) | (torch.arange(3) > 0)[:, None, None])
    losses = associative_loss(broken.requires_grad_(), index, present)
    torch.testing.assert_close(losses, associative_loss(tags, index, present))
    sum(loss.sum() for loss in losses).backward()
    assert broken.grad is not None and broken.grad.isfinite().all()


def test_any_memory_layout_and_precision() -> None:
    tags, index, present = make_people(6)
    torch.testing.assert_close(
        associative_loss(tags.to(memory_format=torch.channels_last), index, present),
        associative_loss(tags, index, present),
    )
    low = associative_loss(tags.bfloat16(), index, present)
    assert low[0].dtype == low[1].dtype == torch.float32
    torch.testing.assert_close(low, associative_loss(tags.bfloat16().float(), index, present))


def test_unknown_push_kind() -> None:
    tags, index, present = make_people(1)
    with pytest.raises(ValueError, match="^push_kind 'abs' is unknown: it is one of exp, max$"):
        associative_loss(tags, index, present, "abs")
