"""The way to run MFN on this machine alone (``local``).

A larger deployment brings settings of its own: it installs the extras of ``pyproject.toml`` that it needs (``spark``, ``celery``,
``kubernetes``) at the versions of ``constraints.txt``, and overrides lines of ``airflow.cfg`` by environment variables.
"""
