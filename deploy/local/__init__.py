"""The embedded deployment: Airflow and MLflow on one machine, on loopback, with nothing but this folder."""
