"""Which values of a metric are better: given by the user, else by its name. Pure."""

import re
from enum import StrEnum

from trainhooks.errors import ConfigInvalid


class Mode(StrEnum):
    """Which values of a metric are the better ones."""

    MIN = "min"
    MAX = "max"


_RISING = re.compile(
    r"(^|[^a-z])("
    r"acc|accuracy|top_?\d+|f1|f_?beta|precision|recall|sensitivity|specificity|au(ro|pr)?c|roc|mrr|ndcg|hits?|kappa|mcc"
    r"|m?ap(_?\d+)?|m?iou|jaccard|dice|psnr|ssim|r2|r_?squared|pearson|spearman|correlation|corrcoef"
    r"|s?a?c?r?e?bleu|rouge(_?[a-z0-9]+)?|meteor|chrf|cider|bert_?score|exact_?match|em|pass|score|reward|return|win_?rate"
    r"|success(_?rate)?|hit_?rate|likelihood|elbo"
    r")([^a-z]|$)"
)
_FALLING = re.compile(
    r"(^|[^a-z])(loss|error|err|nll|negative|perplexity|ppl|[wc]er|mse|rmse|mae|fid|kl|divergence)([^a-z]|$)"
)


def direction_of(metric: str) -> Mode:
    """Return which values of a metric are better, by its name; lower ones if the name is unknown.

    What measures a loss or an error falls, whatever else is in its name (`accuracy_loss`).
    """
    name = f"{metric} {re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', metric)}".lower()
    return Mode.MAX if _RISING.search(name) and not _FALLING.search(name) else Mode.MIN


def mode_of(given: str | None, metric: str) -> Mode:
    """Return the mode that a user gave (`min`, `max`, or None: by the metric's name).

    Raises:
        ConfigInvalid: another word.
    """
    if given is None:
        return direction_of(metric)
    try:
        return Mode(given)
    except ValueError as error:
        raise ConfigInvalid(
            f"The mode {given!r} of the metric {metric!r} is unknown.", hint="Give 'min' or 'max'."
        ) from error
