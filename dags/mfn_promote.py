"""Promote the candidate to champion.

Moves the alias `champion` to a version and keeps the former one as `previous`. The reason stands in the version's tags.

**When:** a new candidate is registered, where `MFN_PROMOTION=automatic`; by hand with the form in any case. Where nobody waits to
be promoted, the task is skipped and says so. **Emits** `mfn_champion`, on which `mfn_score` runs.

### Triage

- Skipped, `MFN_PROMOTION` is manual: a person is to decide. Compare in MLflow, then trigger by hand with `version` and `reason`.
- Skipped, judged against another champion: the champion was moved since. Clear `gate` of that training, or name the version.
- Skipped, trained on data before the champion's: an old training was cleared, or `last_day` was set. Name the version where it is meant.
- Skipped, active within other days than the champion's: the horizon was left open and chosen anew. Name the version where it is meant; else
  set the default of `horizon_days` in `mfn_core/config.py` to the champion's, restart the services and train again.
- Skipped, recommends what a user has met, or leaves it out, other than the champion: likewise, with `mask_seen`.
- Skipped, the champion was lost: somebody deleted its alias or its version, and nothing was compared with it. Name the version.
- `ConfigError`: no such version, or the gate refused it. The message lists the versions that passed: name one of them.
- The new champion is bad: trigger by hand with the number of the version that has the alias `previous`. The next candidate that passes
  the gate is promoted again, unless `MFN_PROMOTION=manual` (then restart the services).
- Do not clear an old run whose form named a version: it makes that version champion again.

Aliases move last, so after a failure the old champion serves on.
"""

from airflow.sdk import DAG, PartitionedAssetTimetable, task

from tasks.airflow_adapter import CANDIDATE_ASSET, CHAMPION_ASSET, announce_version, dag_arguments, is_automatic, run_id, skip, start
from tasks.dag_configs import PromoteConfig

with DAG(
    "mfn_promote",
    schedule=PartitionedAssetTimetable(assets=CANDIDATE_ASSET),
    tags=["mfn", "registry"],
    doc_md=__doc__,
    **dag_arguments(PromoteConfig),
):

    @task(outlets=[CHAMPION_ASSET])
    def promote():
        """Move the alias."""
        from tasks.promote import promote

        settings, config = start(PromoteConfig)
        if is_automatic() and settings.promotion == "manual":
            skip("MFN_PROMOTION is manual: trigger this DAG by hand with a version and a reason")
        promoted = promote(settings, config, run_id())
        if "skipped" in promoted:
            skip(promoted["skipped"])
        announce_version(CHAMPION_ASSET, promoted)
        return promoted

    promote()
