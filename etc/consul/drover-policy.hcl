# What droverd may do in Consul, and no more. One policy and one token for all nodes of a cluster:
#
#     consul acl policy create -name drover -rules @drover-policy.hcl
#     consul acl token create -description drover -policy-name drover
#
# "drover" is the cluster's name (`cluster` in drover.conf). Where hosts should not trust each other,
# drover-node-policy.hcl is the same for one node.

# The instances of the nodes and their checks: registered, updated, read, removed.
service "drover" {
  policy = "write"
}

# Leader, plan, orders, what the nodes offer and have to do.
key_prefix "drover/" {
  policy = "write"
}

# The session that leads. Consul goes by the name of the agent's host here, not of the session.
session_prefix "" {
  policy = "write"
}

# Whether the hosts of other nodes are believed to be up.
node_prefix "" {
  policy = "read"
}

# Brokers that are found as services (`service = "rabbitmq"`); one such rule for each.
service "rabbitmq" {
  policy = "read"
}
