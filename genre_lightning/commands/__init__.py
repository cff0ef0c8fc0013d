"""What each command of `genre-lightning` does; `genre_lightning.cli` names them."""
