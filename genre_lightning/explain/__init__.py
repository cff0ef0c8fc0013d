"""Why a run gives a text its genres: what each word adds to the log-odds of each genre."""
