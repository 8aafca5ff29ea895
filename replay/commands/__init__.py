"""The commands of `pluperfect replay`, a module for each kind of question."""
