"""Moves the alias ``champion``; the version it leaves becomes ``previous``."""

import logging
from typing import Any

from mfn_core.errors import ConfigError
from tasks import manifest
from tasks.dag_configs import PromoteConfig
from tasks.settings import Settings
from tasks.tracking import registry
from tasks.tracking.registry import Version

_log = logging.getLogger(__name__)

_REASON = "mfn.promotion.reason"
_RUN = "mfn.promotion.run"
_NO_HORIZON = str(None)


def promote(settings: Settings, config: PromoteConfig, run_id: str) -> dict[str, Any]:
    """Make a version the champion. Repeating it, or going on after a crash, changes nothing more.

    Args:
        settings: of the registry.
        config: of the DAG run.
        run_id: of the DAG run; a tag of what it promotes, by which its own retry finds what it has done.

    Returns:
        ``name, version, previous, changed, reason``; or ``skipped`` with the reason where nobody waits to be promoted, who waits was judged
        against another champion, is of older data, of another horizon or rule of recommending, or the champion was lost.

    Raises:
        ConfigError: there is no such version, or the gate refused it.
    """
    champion = registry.version_of(settings, registry.CHAMPION)
    if config.version is None and registry.version_of(settings, registry.CANDIDATE) is None:
        if champion is not None and champion.tags.get(_RUN) == run_id:
            # A try before this one got as far as to delete the alias; nobody was told of the champion yet.
            return _promoted(settings, champion, changed=False, reason=champion.tags[_REASON])
        why = f"no version of {settings.model_name} has the alias {registry.CANDIDATE}: nothing to promote"
        _log.info("%s", why)
        return {"skipped": why}
    version = registry.require_version(settings, registry.CANDIDATE if config.version is None else config.version)
    _refuse_failed(settings, version)
    changed = champion is None or champion.number != version.number
    if changed and config.version is None and (why := _why_not_by_itself(settings, champion, version, run_id)):
        _log.warning("%s", why)
        return {"skipped": why}
    reason = config.reason or f"gate: {version.tags.get(registry.GATE_REASON, 'no reason recorded')}"
    if changed:
        _move(settings, champion, version, reason, run_id)
    if registry.CANDIDATE in version.aliases:
        registry.delete_alias(settings, registry.CANDIDATE)
    return _promoted(settings, version, changed, reason)


def _promoted(settings: Settings, version: Version, changed: bool, reason: str) -> dict[str, Any]:
    previous = registry.version_of(settings, registry.PREVIOUS)
    _log.info("%s version %d %s champion", settings.model_name, version.number, "becomes" if changed else "is already")
    return {
        "name": settings.model_name,
        "version": version.number,
        "previous": previous.number if previous else None,
        "changed": changed,
        "reason": reason,
    }


def _why_not_by_itself(settings: Settings, champion: Version | None, version: Version, run_id: str) -> str:
    """Why a person is to promote this candidate. Empty where it may become champion without one."""
    is_begun = version.tags.get(_RUN) == run_id  # by a try before this one: its tags are there, though the alias has not moved yet
    lost = "" if is_begun else registry.lost_champion(settings)
    return (
        lost
        or _judged_against_another(champion, version)
        or _knows_less(champion, version)
        or _foretells_other_days(champion, version)
        or _recommends_by_another_rule(champion, version)
    )


def _judged_against_another(champion: Version | None, version: Version) -> str:
    """Why the gate's verdict does not hold: the champion was moved since, for example back. Empty where it holds."""
    now = str(champion.number if champion else None)
    judged = version.tags.get(registry.GATE_CHAMPION, now)
    if judged == now:
        return ""
    return (
        f"version {version.number} was judged when version {judged} was champion, and now it is version {now}: clear the task gate of its "
        f"training, which judges it anew, or trigger this DAG with version={version.number}"
    )


def _knows_less(champion: Version | None, version: Version) -> str:
    """That the candidate is of older data than the champion: "not worse" on old test users is no reason to go back. Else empty."""
    end, known = (each.tags.get(registry.DATA_END) if each else None for each in (version, champion))
    if end is None or known is None or end >= known:  # versions registered before there was the tag have none
        return ""
    return (
        f"version {version.number} was trained on data before {end}, the champion on data before {known}: where an older model is "
        f"meant, trigger this DAG with version={version.number}"
    )


def _foretells_other_days(champion: Version | None, version: Version) -> str:
    """That the candidate's horizon of activity is another than the champion's, as where it was left open and chosen anew. Else empty."""
    days, known = (each.tags.get(registry.HORIZON, _NO_HORIZON) if each else _NO_HORIZON for each in (version, champion))
    if _NO_HORIZON in (days, known) or days == known:
        return ""
    return (
        f"version {version.number} tells who is active within {days} days, the champion within {known}: activity_probability would mean "
        f"something else to whoever reads it. Where that is meant, trigger this DAG with version={version.number}; else train with "
        f"horizon_days={known}, as the default of the field to have it in weekly runs"
    )


def _recommends_by_another_rule(champion: Version | None, version: Version) -> str:
    """That what a user has met is recommended by one of the two alone, as where the logs pass the share that auto asks. Else empty."""
    rule, known = (each.tags.get(registry.MASK_SEEN) if each else None for each in (version, champion))
    if rule is None or known is None or rule == known:  # versions that recommend nothing have none
        return ""
    does = {"True": "leaves out what a user has met", "False": "recommends what a user has met too"}
    return (
        f"version {version.number} {does[rule]}, the champion {does[known]}: top_items would mean something else to whoever reads it. "
        f"Where that is meant, trigger this DAG with version={version.number}; else train with "
        f"mask_seen={'on' if known == 'True' else 'off'}, as the default of the field to have it in weekly runs"
    )


def _refuse_failed(settings: Settings, version: Version) -> None:
    if version.tags.get(registry.GATE) == registry.PASSED:
        return
    passed = [str(each.number) for each in registry.versions(settings) if each.tags.get(registry.GATE) == registry.PASSED]
    reason = version.tags.get(registry.GATE_REASON, "it has no verdict")
    raise ConfigError(
        f"{settings.model_name} version {version.number} did not pass the gate ({reason}); "
        f"versions that passed: {', '.join(passed) or 'none'}. Promote one of them, or train again"
    )


def _move(settings: Settings, champion: Version | None, version: Version, reason: str, run_id: str) -> None:
    # The alias champion moves last: whoever reads it after a crash finds the old champion with its tags, or the new one with its own.
    now = manifest.now()
    # A champion whose alias was deleted, as the gate advises where it cannot be read, is what a rollback goes back to all the same.
    left = champion or registry.last_promoted(settings)
    if left is not None and left.number != version.number:
        registry.set_alias(settings, registry.PREVIOUS, left.number)
        registry.tag_version(settings, left.number, {"mfn.replaced_by": str(version.number), "mfn.replaced_at": now})
    registry.tag_version(settings, version.number, {registry.PROMOTED_AT: now, _REASON: reason, _RUN: run_id})
    registry.set_alias(settings, registry.CHAMPION, version.number)
