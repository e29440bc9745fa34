"""Exceptions whose message is all that a user needs; the command line prints it without a traceback."""


class CradleError(Exception):
    """Base of the package's own errors.

    Examples
    --------
    >>> import cradlevae as cv
    >>> try:
    ...     cv.load("nowhere")
    ... except cv.CradleError as error:
    ...     print(error)
    no model in nowhere (no model.json); ...
    """


class DataError(CradleError, ValueError):
    """Input that cannot be worked with: the message names what, where and how to mend it.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, seed=0)
    >>> try:
    ...     cv.split(adata, "combination")
    ... except cv.DataError as error:
    ...     print(error)
    unknown split recipe 'combination'; did you mean 'combinations' or 'combinations_published' or 'perturbations'?
    """


class TrainingError(CradleError, RuntimeError):
    """Training that cannot go on: the message names the minibatch, the term and what to try.

    Examples
    --------
    >>> import cradlevae as cv
    >>> issubclass(cv.TrainingError, RuntimeError)
    True
    """
