"""One line per report, for a person."""

from mfn_core.training.progress import Progress


def progress(**changes):
    fields = {
        "phase": "epoch", "epoch": 3, "max_epochs": 30, "step": 8, "num_steps": 8, "losses": {"total": 5.67891},
        "validation": {"activity_auc": 0.7}, "score": 0.7,
        "best_epoch": 2, "best_score": 0.71, "users_per_s": 1234.5, "seconds_left": 3725.0,
    }  # fmt: skip
    return Progress(**fields | changes)


def test_an_epoch_in_one_line():
    line = progress().line()
    assert line == "epoch 3/30, loss 5.6789, activity_auc 0.7000, best epoch 2 (0.7100), 1,234 users/s, at most 1 h 02 min left"


def test_a_step_in_one_line():
    line = progress(phase="training", step=5, validation={}, seconds_left=65.2).line()
    assert line == "epoch 3/30, training step 5/8, loss 5.6789, 1,234 users/s, at most 1 min 05 s left"


def test_an_epoch_that_was_cut_short():
    assert progress(step=5).line().startswith("epoch 3/30, ended at step 5/8, loss 5.6789, activity_auc 0.7000, best epoch 2 (0.7100)")


def test_an_epoch_that_nothing_could_be_measured_in():
    line = progress(validation={}, best_score=None, seconds_left=4.0).line()
    assert line == "epoch 3/30, loss 5.6789, best epoch 2, 1,234 users/s, at most 4 s left"
