"""The tasks that are trained together, and their losses."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rrg.data import PAD, LabelState
from rrg.distributed import gather
from rrg.model.generator import Output, ReportGenerator, needed
from rrg.model.retrieval import Retrieved

DEFAULT_WEIGHTS = {"rg": 1.0, "dc": 4.0, "ita": 1.0, "re": 1.0}
"""The authors' 1 : 4 for report generation and disease classification (arXiv:2605.22635), 1 for the others."""
LONGEST_SCALE = 100.0
RETRIEVAL_SCALE = 1 / 0.07
LABEL_SCALE = 1 / 0.1


def report_loss(report_logits: Tensor, input_ids: Tensor, tokens: float | None = None) -> Tensor:
    """Mean cross-entropy, in nats a token, of every next token of the reports; padding is left out.

    Args:
        report_logits: (B, L, V) floating point.
        input_ids: (B, L) int64, the reports that the logits were computed from.
        tokens: divide by this number of tokens instead of that in ``input_ids``, for a part of a larger batch.

    Returns:
        () tensor.

    Example:
        >>> ids = torch.tensor([[1, 7, 2, 0]])
        >>> report_loss(torch.zeros(1, 4, 10), ids).exp()  # uniform over 10 tokens
        tensor(10.)
    """
    logits, following = report_logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten()
    if tokens is None:
        return F.cross_entropy(logits, following, ignore_index=PAD)
    return F.cross_entropy(logits, following, ignore_index=PAD, reduction="sum") / tokens


def condition_loss(condition_logits: Tensor, labels: Tensor, log_prior: Tensor | None = None) -> Tensor:
    r"""Mean cross-entropy, in nats, over studies and conditions, with logits adjusted by class frequency.

    .. math:: -\log \operatorname{softmax}_s(z_{cs} + τ\log π_{cs}),

    so that the unadjusted logits aim at the balanced error (Menon et al. 2021, arXiv:2007.07314, eq. 10).

    Args:
        condition_logits: (B, C, S) floating point.
        labels: (B, C) int64 states in 0 … S−1.
        log_prior: (C, S), τ log π; None does not adjust.

    Returns:
        () tensor.

    Example:
        >>> condition_loss(torch.zeros(2, 14, 4), torch.zeros(2, 14, dtype=torch.int64)).exp()
        tensor(4.0000)
    """
    adjusted = condition_logits if log_prior is None else condition_logits + log_prior
    return F.cross_entropy(adjusted.flatten(0, 1), labels.flatten())


def alignment_loss(image: Tensor, report: Tensor, input_ids: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric contrastive loss of image and report embeddings over the joint batch (Radford et al. 2021).

    Studies whose reports are the same, as normal ones often are, are positives of each other and share the target.

    Args:
        image, report: (B, E) unit vectors.
        input_ids: (B, L) int64, tells which reports are the same.
        scale: inverse temperature.

    Returns:
        () tensor, nats.

    Example:
        >>> alignment_loss(torch.eye(2), torch.eye(2), torch.tensor([[5], [6]]), 1.0)  # ln(1 + 1/e)
        tensor(0.3133)
        >>> alignment_loss(torch.eye(2), torch.eye(2), torch.tensor([[5], [5]]), 0.0)  # the same report twice
        tensor(0.6931)
    """
    images, reports, ids = gather(image), gather(report), gather(input_ids)
    same = (input_ids[:, None] == ids).all(-1).to(image.dtype)
    target = same / same.sum(1, keepdim=True)
    forward = F.cross_entropy(scale * image @ reports.T, target)
    backward = F.cross_entropy(scale * report @ images.T, target)
    return (forward + backward) / 2


def retrieval_loss(image: Tensor, report: Tensor, labels: Tensor, retrieved: Retrieved) -> Tensor:
    r"""How far the ranking of reports by an image's embedding is from that by shared conditions.

    The candidates are the joint batch's reports and the retrieved ones;

    .. math:: \operatorname{KL}\bigl(\operatorname{softmax}_j(J_{ij}/0.1) ‖
              \operatorname{softmax}_j(⟨v_i, r_j⟩/0.07)\bigr)

    with J the Jaccard index of the positive conditions, 1 where there are none on either side.

    Args:
        image, report: (B, E) unit vectors.
        labels: (B, C) int64 states.
        retrieved: from the memory, without gradient.

    Returns:
        () tensor ≥ 0, nats.
    """
    batch = image @ gather(report).T
    remembered = torch.einsum("be,bke->bk", image, retrieved.embeddings)
    known = torch.cat([torch.ones_like(batch, dtype=torch.bool), retrieved.found], 1)
    others = torch.cat([gather(labels).expand(len(labels), -1, -1), retrieved.labels], 1)
    mine, theirs = (labels == LabelState.POSITIVE)[:, None], others == LabelState.POSITIVE
    union = (mine | theirs).sum(-1)
    jaccard = torch.where(union == 0, 1.0, (mine & theirs).sum(-1) / union.clamp_min(1))
    target = (LABEL_SCALE * jaccard).masked_fill(~known, -torch.inf).log_softmax(1)
    similarity = (RETRIEVAL_SCALE * torch.cat([batch, remembered], 1)).masked_fill(~known, -1e9).log_softmax(1)
    return F.kl_div(similarity, target.masked_fill(~known, -1e9), reduction="batchmean", log_target=True)


def task_losses(
    model: ReportGenerator,
    output: Output,
    batch: dict[str, Tensor],
    tasks: Sequence[str] | None = None,
    tokens: float | None = None,
) -> list[Tensor]:
    """Losses in the order of the tasks.

    Args:
        model: has the class frequencies and the contrastive scale.
        output: the model's predictions for the batch.
        batch: with ``input_ids`` (B, L) and ``labels`` (B, C).
        tasks: which losses; those of the model by default.
        tokens: as in ``report_loss``.

    Returns:
        one () tensor a task.

    Raises:
        ValueError: for a task that the model was built without.

    Example:
        >>> from rrg.model import ModelConfig
        >>> model = ReportGenerator(ModelConfig((8,), (1,), decoder_width=8, decoder_layers=1), 10, 3)
        >>> output = Output(torch.zeros(1, 3, 10), torch.zeros(1, 14, 4))
        >>> batch = {"input_ids": torch.tensor([[1, 7, 2]]), "labels": torch.ones(1, 14).long()}
        >>> [round(loss.exp().item()) for loss in task_losses(model, output, batch)]
        [10, 4]
    """
    losses = []
    for task in model.tasks if tasks is None else tasks:
        if task == "rg":
            losses.append(report_loss(needed(output.report_logits, task), batch["input_ids"], tokens))
        elif task == "dc":
            losses.append(condition_loss(needed(output.condition_logits, task), batch["labels"], model.log_prior))
        else:
            embeddings = needed(output.image_embedding, task), needed(output.report_embedding, task)
            if task == "ita":
                scale = model.log_scale.exp().clamp_max(LONGEST_SCALE)
                losses.append(alignment_loss(*embeddings, batch["input_ids"], scale))
            else:
                losses.append(retrieval_loss(*embeddings, batch["labels"], needed(output.retrieved, task)))
    return losses
