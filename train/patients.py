"""Who is on an image, importable without the package: see `train.data.patients`."""

from train.data.patients import DataError, Subject, SubjectOf, kaggle_subject, subject_finder

__all__ = ["DataError", "Subject", "SubjectOf", "kaggle_subject", "subject_finder"]
