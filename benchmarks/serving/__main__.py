"""Run the serving benchmark: `python -m benchmarks.serving` (`benchmarks.serving.main`)."""

from benchmarks.serving.main import main

if __name__ == "__main__":
    main()
