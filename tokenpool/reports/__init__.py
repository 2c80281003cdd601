"""Reports of a campaign: its facts, gathered in one pass over the tokens, and the page and the crate that tell them."""
