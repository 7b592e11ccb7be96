"""Labels of reports by rules, and their agreement with experts."""
