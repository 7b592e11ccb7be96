"""Studies: reports and images from an annotation (r2gen), or real reports (openi) or ones from a grammar (phantom) with
images rendered from their findings."""
