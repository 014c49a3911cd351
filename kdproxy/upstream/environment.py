"""The environment's proxy: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, and no other variable.

NO_PROXY accepts all that curl, Go and requests accept: names with their subdomains, `*`, addresses, and networks in
CIDR notation (`10.0.0.0/8`, `fd00::/8`), which Python's urllib does not accept. No name is resolved for it.
"""

import ipaddress
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from yarl import URL


class EnvironmentProxy:
    """The environment's proxy settings when the process started."""

    def __init__(self) -> None:
        self._proxies = getproxies_environment()
        entries = self._proxies.get("no", "").replace(",", " ").split()
        self._networks = [network for entry in entries if (network := _network(entry)) is not None]

    def of(self, url: str) -> str | None:
        """Return the proxy for a URL, or None."""
        parsed = URL(url, encoded=True)
        host = parsed.host or ""
        if self._is_direct(host) or proxy_bypass_environment(host, self._proxies):
            return None
        return self._proxies.get(parsed.scheme)

    def shown(self, url: str) -> str | None:
        """Return the proxy for a URL without the credential that it may hold, for display."""
        proxy = self.of(url)
        return None if proxy is None else str(URL(proxy).with_user(None))

    def _is_direct(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._networks if network.version == address.version)


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    bare = entry[1:-1] if entry.startswith("[") and entry.endswith("]") else entry
    try:
        return ipaddress.ip_network(bare, strict=False)
    except ValueError:
        return None
