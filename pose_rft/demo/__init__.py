"""`pose-rft demo`: a local web page for photographs and sentences, with a JSON API."""
