"""Studies: real reports (openi) or reports from a grammar (phantom), with images rendered from findings."""
