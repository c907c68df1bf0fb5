"""Full ranking of the catalogue, in float32 and in blocks of users."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from mfn_core.model.scoring import ItemScores
from mfn_core.schema import FIRST_KNOWN, PAD, UNKNOWN

_MAX_SCORES_PER_BLOCK = 2**24
_LINE = 16  # float32 numbers in a cache line


def target_ranks(scores: ItemScores, target_B: Tensor, seen_BL: Tensor | None) -> Tensor:
    """How many items score above each target.

    PAD, UNKNOWN and seen items are no rivals; the target always competes, even where it was seen. Ties count half, so
    that constant scores rank in the middle; a score that is not a number stands above all, and as a target's it ranks last. A target that
    is PAD or UNKNOWN, an item the catalogue lacks, cannot be recommended: its rank is N.

    Args:
        scores: One position per user.
        target_B: Item to rank per user.
        seen_BL: Items that must not be recommended, padded with PAD; None masks nothing.

    Returns:
        float32 [B]; 0 is first.
    """
    ranks: list[Tensor] = []
    for rows, scores_BN in _blocks(scores, users_adjacent=True):
        column_B1 = target_B[rows, None]
        target_score_B1 = scores_BN.gather(1, column_B1)
        _mask(scores_BN, seen_BL, rows)
        scores_BN.scatter_(1, column_B1, target_score_B1)
        num_items = scores_BN.shape[1]
        # Of N - 1 rivals a above the target, t tied and b below: a + t / 2 = (a - b + N - 1) / 2, one sum of signs, in place, and as floats
        # exact below 2^24 items. What is no number has sign 0 and would be tied: it stands above.
        above_less_below_B = scores_BN.sub_(target_score_B1).nan_to_num_(nan=1.0).sign_().sum(1)
        is_rankable_B = (target_B[rows] > UNKNOWN) & ~target_score_B1.squeeze(1).isnan()
        ranks.append(torch.where(is_rankable_B, (above_less_below_B + num_items - 1) / 2, float(num_items)))
    return torch.cat(ranks)


def by_columns(table_ND: Tensor) -> Tensor:
    """The table, on a CPU in memory column by column.

    So a CPU takes less than half as long to multiply it with one query, and for many no longer.
    """
    return table_ND.detach().float().T.contiguous().T if table_ND.is_cpu else table_ND


def top_items(scores: ItemScores, k: int, seen_BL: Tensor | None) -> tuple[Tensor, Tensor]:
    """The k best items of each user, best first: ids [B, k] and float32 scores [B, k].

    Where fewer than k items are left to recommend, the rest is PAD with a score of -inf. Arguments as in ``target_ranks``; of the item
    tables that of ``by_columns`` is read fastest.
    """
    ids: list[Tensor] = []
    best_scores: list[Tensor] = []
    num_returned = min(k, len(scores.bias_N))
    for rows, scores_BN in _blocks(scores, users_adjacent=False):
        _mask(scores_BN, seen_BL, rows)
        best = scores_BN.topk(num_returned, dim=1)
        ids.append(best.indices.masked_fill(best.values == -torch.inf, PAD))
        best_scores.append(best.values)
    missing = (0, k - num_returned)
    return functional.pad(torch.cat(ids), missing, value=PAD), functional.pad(torch.cat(best_scores), missing, value=-torch.inf)


def _blocks(scores: ItemScores, *, users_adjacent: bool) -> Iterator[tuple[slice, Tensor]]:
    """Scores [B, N] of some users at a time, in memory either a user's items side by side or, a faster product, an item's users."""
    # bfloat16 scores tie for about one user in seventeen, so ranking is in float32 whatever the network runs in.
    weight_ND, bias_N = scores.weight_ND.detach().float(), scores.bias_N.detach().float()
    block = max(1, _MAX_SCORES_PER_BLOCK // len(weight_ND))
    if block > _LINE:
        block -= block % _LINE  # rows that end within a cache line cost a sixth to a third of the speed
    for start in range(0, max(len(scores.query_PD), 1), block):
        rows = slice(start, start + block)
        here = scores.at(rows)
        with torch.autocast(weight_ND.device.type, enabled=False):
            query_BD = here.query_PD.detach().float()
            if users_adjacent:
                scores_BN = torch.addmm(bias_N[:, None], weight_ND, query_BD.T).T
            else:
                scores_BN = torch.addmm(bias_N, query_BD, weight_ND.T)
        yield rows, scores_BN.scatter_add_(1, here.gaining_PM, here.gains_PM.detach().float())


def _mask(scores_BN: Tensor, seen_BL: Tensor | None, rows: slice) -> None:
    scores_BN[:, :FIRST_KNOWN] = -torch.inf
    if seen_BL is not None:
        scores_BN.scatter_(1, seen_BL[rows], -torch.inf)
