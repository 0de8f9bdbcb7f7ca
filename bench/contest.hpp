// Contestants with names, measured together and reported one against the other. One thread.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "measure.hpp"
#include "report.hpp"

namespace ipcfs::bench {

class Contest {
public:
    void add(std::string name, Round round) {
        names_.push_back(std::move(name));
        rounds_.push_back(std::move(round));
    }
    void run(unsigned rounds) { medians_ = interleave(rounds, rounds_); }
    bool has(const std::string& name) const { return index(name) < names_.size(); }
    // Figure `which` of a contestant; nothing where there is none of that name.
    std::optional<double> figure(const std::string& name, std::size_t which = 0) const {
        return has(name) ? std::optional(medians_.at(index(name)).at(which)) : std::nullopt;
    }
    // A row of figure `which` of both. Where the machine has no such baseline the row says so.
    Row row(const std::string& what, const std::string& subject, const std::string& baseline,
            Target target = {}, const std::string& unit = "ns", std::size_t which = 0) const {
        return {what,
                figure(subject, which),
                unit,
                baseline.empty() || has(baseline) ? baseline : baseline + " (none on this machine)",
                figure(baseline, which),
                target};
    }

private:
    std::size_t index(const std::string& name) const {
        std::size_t at = 0;
        while (at < names_.size() && names_[at] != name) ++at;
        return at;
    }
    std::vector<std::string> names_;
    std::vector<Round> rounds_;
    std::vector<Figures> medians_;
};

}  // namespace ipcfs::bench
