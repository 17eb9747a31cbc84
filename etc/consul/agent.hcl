# A Consul agent on a host with droverd: all of this is optional, and merged with what the agent has
# already (a file in its -config-dir).

# The text of a check is shown in the UI within a minute as it is: droverd registers it again, at most
# once a minute, whatever this is. Where the servers have room for a few more writes, this makes texts
# that did not change their colour appear sooner.
# check_update_interval = "10s"

# droverd can speak to the agent over a unix socket instead of TCP: then nobody else on the host needs to
# be kept from the port. In drover.conf: registry = { plugin = "consul"; address =
# "unix:///run/consul/http.sock"; };
# addresses {
#   http = "unix:///run/consul/http.sock"
# }
# unix_sockets {
#   group = "drover"
#   mode  = "0660"
# }

# With TLS, droverd is told the authority and, where the agent asks for one, its own certificate
# (docs/consul.md).
# ports {
#   https = 8501
# }
