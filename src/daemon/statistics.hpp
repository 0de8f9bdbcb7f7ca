// The statistics of kern/ipc/stats/resources. Any thread.
#pragma once

#include <string_view>
#include <vector>

#include <insight/metric.hpp>

namespace ipcfs::daemon {

struct ResourceRow {
    std::string_view scope;
    insight::Described row;
};
// All but `total` and `request`, for the documentation.
std::vector<ResourceRow> resource_rows();

}  // namespace ipcfs::daemon
