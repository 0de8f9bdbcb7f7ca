// `ipcfs doctor`: runs the checks and prints what they find. One thread.
#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <checks.hpp>
#include <command.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

constexpr const char* to_string(Level level) {
    return level == Level::kOk ? "ok" : level == Level::kWarn ? "warn" : "fail";
}

int doctor(const Globals& globals, const NoOptions&) {
    const Machine machine(choose_root(globals.mount));
    std::vector<std::pair<std::string, Finding>> findings;
    std::map<Level, int> counts;
    for (const auto checks : {system_checks(), resource_checks()}) {
        for (const Check& each : checks) {
            const Finding& made = findings.emplace_back(each.name, each.run(machine)).second;
            ++counts[made.level];
        }
    }
    const int exit = counts[Level::kFail] > 0 ? kError : kOk;
    if (globals.json) {
        Json list = Json::array();
        for (const auto& [check, each] : findings) {
            list.push_back({{"check", check},
                            {"level", to_string(each.level)},
                            {"found", each.found},
                            {"advice", each.advice.empty() ? Json() : Json(each.advice)}});
        }
        print_json({{"ok", exit == kOk}, {"checks", list}});
        return exit;
    }
    std::size_t widest = 0;
    for (const auto& [check, each] : findings) widest = std::max(widest, check.size());
    std::string out;
    for (const auto& [check, each] : findings) {
        if (globals.quiet && each.level == Level::kOk) continue;
        std::string level = to_string(each.level);
        out += level + std::string(6 - level.size(), ' ') + for_output(check);
        out += std::string(widest - check.size() + 2, ' ') + for_output(each.found) + "\n";
        if (!each.advice.empty()) out += "      -> " + for_output(each.advice) + "\n";
    }
    if (!globals.quiet) {
        out += std::to_string(counts[Level::kOk]) + " ok, " + std::to_string(counts[Level::kWarn]) +
               " with a warning, " + std::to_string(counts[Level::kFail]) + " failed\n";
    }
    print(out);
    return exit;
}

Registration<NoOptions> g_doctor(
    Group::kDaemon, "doctor", "Check what this machine offers and advise on what is missing",
    "  ipcfs doctor\n  ipcfs doctor --json | python3 -m json.tool", [](Command&, NoOptions&) {},
    doctor);

}  // namespace
}  // namespace ipcfs::client
