# What droverd of one host may do in Consul, and no more: as drover-policy.hcl, but with sessions of its
# own host alone. HOST is the name that `consul members` has for it:
#
#     sed 's/HOST/web1/' drover-node-policy.hcl | consul acl policy create -name drover-web1 -rules -
#     consul acl token create -description drover-web1 -policy-name drover-web1
#
# The service and the keys are still the whole cluster's: who leads writes for all, and Consul knows no
# rule for one instance of a service.

service "drover" {
  policy = "write"
}

key_prefix "drover/" {
  policy = "write"
}

session "HOST" {
  policy = "write"
}

node_prefix "" {
  policy = "read"
}

service "rabbitmq" {
  policy = "read"
}
