"""Score every user with the champion.

Embedding, activity probability, attribute probabilities and top-k items for every user, in batches; audited, then published
under `scores/as_of=…/version=…`. Days that were refused or never validated are not read; the log and the manifest name them.

**When:** a day is validated, or there is a new champion; by hand for another day, alias or `top_k`. What is scored already
(same version, same logs) is no work: `plan` is skipped and says so. **Emits** `mfn_scores`; after a rollback again for the scores
that hold once more, without computing them.

**Readers** take the version of a day whose `manifest.json` has the latest `created_at`. A run by hand for the same day and version with
another `top_k` replaces what is there; one with another alias becomes the latest of its day, as does an old `score` that is cleared.

### Triage

- `plan` skipped, no champion yet: look at `mfn_train` and `mfn_promote`.
- `ConfigError`, the champion was lost: somebody deleted its alias or its version. Trigger `mfn_promote` with the version it names.
- `AuditError`: scores outside their range, or users missing. Open the page that the message names; promote `previous` if the
  model is to blame.
- `ArtifactError`: the champion's bundle cannot be read; promote another version. `ConfigError`: no version has the alias of the form.
- `InsufficientDataError`: no event before the day asked for, or none on a validated day.
- A user is missing who has events: see `left_out` in the manifest. Mend those days and run `mfn_validate`.
- The log of `score` warns that the GPU is full: a training has its memory, and the CPU scores, which takes longer.
- `score` timed out (6 hours): it begins anew each time, so it is not retried, and clearing it does not help. Trigger by hand with a
  larger `batch_size` (on a GPU), or raise its `execution_timeout` in `dags/mfn_score.py`.

After a failure readers keep the last published scores.
"""

from datetime import timedelta

from airflow.sdk import DAG, PartitionedAssetTimetable, task

from tasks.airflow_adapter import CHAMPION_ASSET, SCORES_ASSET, VALIDATED_ASSET, dag_arguments, skip, start
from tasks.dag_configs import ScoreConfig

with DAG(
    "mfn_score",
    schedule=PartitionedAssetTimetable(assets=VALIDATED_ASSET | CHAMPION_ASSET),
    tags=["mfn", "score"],
    doc_md=__doc__,
    **dag_arguments(ScoreConfig),
):

    @task
    def plan():
        """Resolve version and day; skip what is scored already."""
        from tasks.score import plan_score

        planned = plan_score(*start(ScoreConfig))
        return skip(planned["skip"]) if planned["skip"] else planned

    @task(outlets=[SCORES_ASSET], execution_timeout=timedelta(hours=6))
    def score(planned):
        """Score, audit, publish."""
        from tasks.score import score

        return score(*start(ScoreConfig), planned)

    score(plan())
