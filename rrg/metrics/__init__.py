"""Scores of generated reports: n-gram overlap (:mod:`rrg.metrics.nlg`) and findings (:mod:`rrg.metrics.clinical`)."""
