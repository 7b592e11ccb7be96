"""``python -m rrg.data.labels``: agreement of the rule-based labels with the experts' tags."""

from rrg.data.labels.agreement import main

if __name__ == "__main__":
    main()
