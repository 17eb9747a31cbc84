/* SPDX-License-Identifier: MIT */
/*
 * The kinds of changes that Drover logs: each has a level and, in the journal, a MESSAGE_ID that stays
 * for ever, by which scripts and alarms find it and systemd/drover.catalog explains it. A new kind gets
 * an id by `systemd-id128 new` and an entry there; an id is never used again for something else.
 */
#ifndef DROVER_BASE_KINDS_H
#define DROVER_BASE_KINDS_H

/* clang-format off */
#define KINDS(KIND)                                                                                \
	/* droverd itself */                                                                       \
	KIND(READY, NOTICE, "c5b35fdbfcd64c8d91308e1fd8c89bcb")                                    \
	KIND(NOT_STARTED, ERROR, "f8c2374721f8408ea04d38598039cbed")                               \
	KIND(CONFIG_REFUSED, ERROR, "7b6ea2366989442faa1d4679cf334403")                            \
	KIND(CONFIG_ERROR, ERROR, "c086ff0dc1134d0f97cf5fd43fd241c2")                              \
	KIND(RELOADED, NOTICE, "f46f77fd0ab1442d8c61fa932bfac063")                                 \
	KIND(RELOAD_REFUSED, ERROR, "08c303757fce407b8fbb8654860a429e")                            \
	KIND(STOPPING, NOTICE, "99f614fe2a4845768aff915cab1c8d13")                                 \
	KIND(STOP_LATE, WARNING, "c741ea852476455d916bd9a4f828059a")                               \
	KIND(STOP_AT_ONCE, NOTICE, "e24e9a4f888f450ea4f0f43c4c85ef44")                             \
	KIND(STOPPED, NOTICE, "73110c387ec448cb847453b5bf406dd5")                                  \
	KIND(RUNS_AS_ROOT, WARNING, "90ace78ae74346fa86b2cc859becec17")                            \
	KIND(LOOP_FAILED, ERROR, "44cdd968d97d4e7e9807fec4ebe36b75")                               \
	KIND(OUT_OF_MEMORY, ERROR, "df851cb065a145c08ffcec7d36236cc5")                             \
	KIND(STATE_NOT_WRITTEN, ERROR, "58791360413b4173ab93668e37b186ae")                         \
	KIND(STATE_NOT_READ, WARNING, "666d17954f284dff8294128562243721")                          \
	KIND(JOURNAL_LOST, WARNING, "6e74c87ce7b44e4da79d653d998654ac")                            \
	/* its processes */                                                                        \
	KIND(ROLE_DIED, WARNING, "0e1de4959a42456fbff20fe81379d29a")                               \
	KIND(ROLE_NOT_STARTED, ERROR, "02d86e939a974b9faf0548a4a9cd6868")                          \
	KIND(ROLE_HUNG, WARNING, "436aa287940c474389fa40edea819bb1")                               \
	KIND(ROLE_GARBAGE, ERROR, "6066dd0da58244beb82a3ae4e70e12a7")                              \
	KIND(CREDENTIALS_LEFT, WARNING, "460cd2d8b2784c16ac579ffd64fa1841")                        \
	/* what people ask for */                                                                  \
	KIND(SCALED, NOTICE, "d9b44e04e66d4b9ab90a81b124aa554f")                                   \
	KIND(ORDER_EXPIRED, NOTICE, "49ff146d1a13420f8b40048f20b2428d")                            \
	KIND(PAUSED, NOTICE, "e9c968ad6648408aa56b615880c70500")                                   \
	KIND(RESUMED, NOTICE, "be4044eb1c4d41d8b8ca32c958ba35d6")                                  \
	KIND(DRAINED, NOTICE, "2dd930df6259467394ae992abc0f40cb")                                  \
	KIND(RESTARTED, NOTICE, "8980ad504eeb4c03b89b72140944ff9f")                                \
	KIND(PUBLISHED, INFO, "71fdab51a6af448f9e9373180b1464d6")                                  \
	KIND(COMMAND, NOTICE, "06a75cf56e044a9794d89ebaa0ca1f6a")                                  \
	KIND(COMMAND_REFUSED, NOTICE, "1e5154ba7de644b89bb2298e8a73a0ea")                          \
	/* handlers */                                                                             \
	KIND(HANDLER_SERVED, NOTICE, "a36b0cc352e549c8b4211304846bbc49")                           \
	KIND(HANDLER_REFUSED, ERROR, "0fe25587fb784175990e694c394c28b8")                           \
	KIND(HANDLER_REPLACED, NOTICE, "01aacb7abe754890aa19a014493c9b1e")                         \
	KIND(HANDLER_PROVED, NOTICE, "0ec51646732d48d0a52a0961478c87cd")                           \
	KIND(HANDLER_REVERTED, NOTICE, "9b753b5898ce4d088170a944b14a073e")                         \
	KIND(HANDLER_REMOVED, NOTICE, "3546573cd7e64b5db16b1aff4cdbfa24")                          \
	KIND(HANDLERS_UNREADABLE, ERROR, "ce2203f52c394518b9848b6b380b127b")                       \
	KIND(HANDLERS_MISSING, NOTICE, "8ccc4a8779434c3f89094e5884ea1c6a")                         \
	KIND(LINES_LEFT_OUT, WARNING, "4259a4aaac6d4746919992361bfba282")                          \
	KIND(TYPE_CHANGED, INFO, "416d565c26bc401ba74e1a547bbf1916")                               \
	/* workers */                                                                              \
	KIND(WORKERS, INFO, "4700c38d94b24dc589a28fb6acd2a8f5")                                    \
	KIND(WORKER_CRASHED, WARNING, "041b9b23efc64a229a44f7c570770a4b")                          \
	KIND(WORKER_TIMED_OUT, WARNING, "1fa66e6ed3ee4b229c331955675f452b")                        \
	KIND(WORKER_OUT_OF_MEMORY, WARNING, "88fbeb427fdb402484cd0a6c610ea4f1")                    \
	KIND(WORKER_START_FAILED, WARNING, "81e4c4d8b12b4d9f9cc5e4e56493d038")                     \
	KIND(WORKER_GARBAGE, WARNING, "8a379b5550b843d68cfe308e5b49925f")                          \
	KIND(WORKER_KICKED, NOTICE, "82ba64f03d1742d8801100a9bde85184")                            \
	KIND(WORKER_ENDED, NOTICE, "a19e9dd8ccfa4adeae144ba8154e085d")                             \
	KIND(WORKER_KILLED, WARNING, "1fdb70ec569148dfa1880530cea90c83")                           \
	/* events */                                                                               \
	KIND(EVENT_DEAD, WARNING, "fd14c1b21f384f1f829d061b77276a74")                              \
	KIND(EVENT_UNSETTLED, WARNING, "0eaa6cd2d06a45728cb7bb3de25e268d")                         \
	KIND(EVENT_UNPUBLISHED, WARNING, "e00c9ed62dbf4d2d9a2e647db1b1f228")                       \
	KIND(EVENTS_GIVEN_BACK, WARNING, "34578f34c0194a9da98f35aaa0701800")                       \
	KIND(PROBING, WARNING, "44701421a4be41848ebef0dbbe6faa0f")                                 \
	KIND(PROBING_OVER, NOTICE, "51a14add44014a22aea9dc3d330b1e7e")                             \
	KIND(INBOX_FAILED, WARNING, "a85d8f605e2e43959704218a4782e39d")                            \
	KIND(INBOX_WORKS, NOTICE, "fb7f3c715dfd49489962083e732abf1f")                              \
	/* brokers */                                                                              \
	KIND(BROKER_UP, NOTICE, "a9a04e9bf72a4b279b889654846f06af")                                \
	KIND(BROKER_LIMITED, WARNING, "09d7686d7c854fe49f5de4c41f0fbd0c")                          \
	KIND(BROKER_DOWN, WARNING, "6999721e2c1346cf94e2e7295529422a")                             \
	KIND(BROKER_REFUSES, ERROR, "6364763e0ef74c25bf31cc8c0241c6ce")                            \
	KIND(BROKER_NOT_FOUND, WARNING, "0768b93f5d7846e1bea4b62679f4cc75")                        \
	KIND(CONNECTION_UP, INFO, "1a1f0ff3e783411a9025e767d99fa3a3")                              \
	KIND(CONNECTION_LIMITED, WARNING, "72d216df355347cfb81cf0da0c25bd8b")                      \
	KIND(CONNECTION_DOWN, WARNING, "38e09f371179442c9fa92db043194b20")                         \
	KIND(CONNECTION_REFUSED, WARNING, "b079bb7c87b24553a9500361849c2f9e")                      \
	KIND(QUEUES_NOT_DECLARED, WARNING, "809ca86c21864a0cab9ce7b03ea0467f")                     \
	KIND(QUEUES_DECLARED, NOTICE, "f5629b4a870a4e198235d7e1f1403cc2")                          \
	KIND(SERVICE_FOUND, NOTICE, "2468ad136d544b66bfd86ba703ed2271")                            \
	KIND(SERVICE_MISSING, WARNING, "0a744d12d39340c88a4973b9e41e5050")                         \
	KIND(SERVICE_SKIPPED, WARNING, "62539cf3c726454aa9541adf5270ed5b")                         \
	/* the cluster */                                                                          \
	KIND(REGISTRY_UP, NOTICE, "5e7aaf9aee924ff5a438cbf7c300c973")                              \
	KIND(REGISTRY_SUSPENDED, WARNING, "70ecf6fa6be7494b8880e27588b93587")                      \
	KIND(REGISTRY_LOST, WARNING, "f642a836c2154ef4a2382fd85032d6d7")                           \
	KIND(REGISTRY_REFUSES, ERROR, "f98612d8456f4fc7b0735b62c3701a35")                          \
	KIND(REGISTRY_NOT_WRITTEN, WARNING, "ecc4e6bf396b49399241d18e5310cfba")                    \
	KIND(REGISTRY_UNREADABLE, WARNING, "e12f6951ddde4b39b035863552d12821")                     \
	KIND(REGISTRY_LEFT_BEHIND, WARNING, "20ce5f05a7684417b9ae16956ba5254c")                    \
	KIND(LEADS, NOTICE, "8b66b73588ff4c8e98fdfd75cfafbdc8")                                    \
	KIND(FOLLOWS, NOTICE, "52933d63a2e843f1a6b2cdaf768f058a")                                  \
	KIND(LEADERLESS, WARNING, "9099b85f90dd468598c52e075d3722af")                              \
	KIND(AUTONOMOUS, WARNING, "f60e7a13d8c6467ba67847da075f5fca")                              \
	KIND(AUTONOMY_OVER, NOTICE, "5fef799f58494a87b42aef5bec284532")                            \
	KIND(PLAN_NOT_WRITTEN, ERROR, "b6ffd2ce483a4288bfd348e0e59515b5")                          \
	KIND(PLAN_UNREADABLE, ERROR, "c91eb3b71c1546dbb2df3c900146086c")                           \
	KIND(NODE_JOINED, NOTICE, "c2ddbf3b170546969aef91b2554b1621")                              \
	KIND(NODE_LEFT, NOTICE, "a48aa92c735e4ac291a18d187db506c7")                                \
	KIND(NODES_DIFFER, WARNING, "d773032685604cfead10a604f11ed5ca")                            \
	KIND(BROKER_ELSEWHERE, WARNING, "fb7e7b4bcb384a038a1c39cb65967a69")                        \
	KIND(TYPES_TOO_MANY, ERROR, "6417b136b4a64853b9b80130d7f99272")                            \
	KIND(MAINTENANCE, NOTICE, "74c023c44bbe4c8d846c94d31293a266")                              \
	KIND(MAINTENANCE_OVER, NOTICE, "ee8cab07dabc4c27b5102826ec4b4dc1")                         \
	KIND(ORDERS_RESTORED, NOTICE, "dde6c7acfe484e5f8de8c377e6a3f552")
/* clang-format on */

#define KIND_ENUM(name, level, id) KIND_##name,
enum log_kind {
	KIND_NONE, /* a line that is of no kind */
	KINDS(KIND_ENUM) KINDS_END,
};
#undef KIND_ENUM

#endif
