"""`pose-rft demo`: a page of this machine for photographs and sentences, with a JSON API beside it."""
