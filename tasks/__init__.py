"""The tasks: URIs in, a small JSON manifest out.

Verbs, what a task of a DAG calls, its plan included::

    simulate  ingest (ingest_plan, ingest_sources, ingest_limits)  ingest_users  validate  plan  build_dataset  train  evaluate
    gate  register  promote  score  compare

Adapters, the one module that knows an outside thing::

    settings: the environment    airflow_adapter: Airflow    tracking: MLflow    engine: DuckDB    storage: files by URI
    audit, data_docs: Great Expectations    serving_model: what MLflow runs of ours

Nouns, what the verbs read, hold and write::

    of every task        manifest  dag_configs  config_errors  locks
    raw to curated       raw  raw_parts  log_rows  coding  equal_rows  parts  day_parts  measures  quarantine  receipt  publication
    curated to datasets  curated  validated  empty_days  events  coded_events
    what a model did     plots  held_out  rivals  comparison
"""
