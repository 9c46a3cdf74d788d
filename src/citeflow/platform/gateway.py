"""Users behind Kubeflow's gateway, by the token that the gateway has got from the provider.

The gateway also names the user in `kubeflow-userid`, but any pod of the mesh can send that header.
So it counts for nothing without a token that the provider has signed for the gateway's own client.
"""

import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from citeflow.platform.accounts import Account, Accounts
from citeflow.platform.identities import Identities
from citeflow.serving.problems import ProblemError

if TYPE_CHECKING:
    from citeflow.platform.oidc import Provider

USER_HEADER = "kubeflow-userid"
TOKEN_HEADER = "authorization"
BEARER = "bearer "

NOTE_EVERY_S = 60.0
"""Time between two entries of the audit for the same refusal: a page asks again and again."""


class Gateway:
    """The users that a gateway lets through."""

    def __init__(self, provider: "Provider", identities: Identities, accounts: Accounts) -> None:
        """Take the provider, and where the accounts are."""
        self._provider = provider
        self._identities = identities
        self._accounts = accounts
        self._noted: dict[str, float] = {}

    def account(self, headers: Headers, address: str) -> Account | None:
        """Return who asks; None where the request does not come through the gateway.

        Raises:
            ProblemError: the token proves nothing, the header names somebody else, or there is no
                account.
            UnavailableError: the provider does not answer, and its keys are not known.
        """
        named = headers.get(USER_HEADER, "")
        token = headers.get(TOKEN_HEADER, "")
        if not named and not token:
            return None
        try:
            return self._proved(token, named)
        except ProblemError as problem:
            self._note(address, problem.detail)
            raise

    def _proved(self, token: str, named: str) -> Account:
        if not token.lower().startswith(BEARER):
            detail = f"{USER_HEADER} comes without a token that proves it"
            hint = "the gateway has to pass on the header Authorization"
            raise ProblemError(HTTPStatus.UNAUTHORIZED, detail, hint=hint)
        identity = self._provider.of_gateway(token[len(BEARER) :].strip(), named)
        account, is_new = self._identities.account(identity)
        if is_new:
            said = f"opened the account by {self._provider.settings.name}"
            self._accounts.note(account.name, "log in", account.name, said)
        return account

    def _note(self, address: str, detail: str) -> None:
        now = time.monotonic()
        self._noted = {
            said: since for said, since in self._noted.items() if since > now - NOTE_EVERY_S
        }
        if detail not in self._noted:
            self._noted[detail] = now
            self._accounts.note("(unknown)", "gateway", address, f"refused: {detail}")
