// Shared by tests of the control socket: the real tree and exchange behind a server whose loop runs
// on a thread, in a temporary directory.
#pragma once

#include <filesystem>
#include <future>
#include <stdlib.h>
#include <thread>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <control/server.hpp>
#include <control/socket.hpp>
#include <payload/memory.hpp>

#include "../common/control_client.hpp"
#include "engine_fixture.hpp"
#include <channel/registry.hpp>
#include <tree/exchange.hpp>

namespace ipcfs::control {

using test::ControlClient;

// Stores its lines. Thread-safe.
class KeptLog final : public Logger {
public:
    KeptLog() : Logger(Level::kInfo) {}
    bool has(std::string_view part) const {
        return lines_.with([&](const std::string& all) { return all.find(part) != all.npos; });
    }

protected:
    void emit(Level, std::string_view line) noexcept override {
        lines_.with([&](std::string& all) { all.append(line).append("\n"); });
    }

private:
    Guarded<std::string> lines_;
};

// Blocks the loop while it lives.
class Pause {
public:
    explicit Pause(boost::asio::io_context& loop) {
        auto here = std::make_shared<std::promise<void>>();
        auto stands = here->get_future();
        boost::asio::post(loop, [here, over = go_on_.get_future().share()] {
            here->set_value();
            over.wait();
        });
        stands.wait();
    }
    ~Pause() { go_on_.set_value(); }

private:
    std::promise<void> go_on_;
};

class ControlWorld : public testing::Test {
protected:
    static constexpr std::chrono::seconds kPatience{20};

    ControlWorld() {
        char name[] = "/tmp/ipcfs-control-XXXXXX";
        directory_ = ::mkdtemp(name);
        make_channel("jobs");
    }
    ~ControlWorld() override {
        server_.reset();
        loop_.stop();
        if (thread_.joinable()) thread_.join();
        std::filesystem::remove_all(directory_);
    }

    std::string path() const { return directory_ + "/socket"; }
    void serve(ServerConfig config = {}) {
        config.path = path();
        config.mount = "/somewhere";
        server_ = std::make_unique<Server>(config, loop_, exchange_, ledger_, log_);
        auto started = server_->start();
        ASSERT_TRUE(started) << started.error().message();
        thread_ = std::thread([this] { loop_.run(); });
    }
    ControlClient connect() const { return ControlClient(path()); }

    void make_channel(std::string_view name, std::string_view settings = {}) {
        tree::NewChannel made;
        made.subject.uid = ::getuid();
        auto node = tree_.make_channel({channel::Registry::kRootId, tree::Kind::kRoot}, name, made);
        ASSERT_TRUE(node) << node.error().message();
        if (!settings.empty()) {
            ASSERT_TRUE(channel(name)->control(settings));
        }
    }
    std::shared_ptr<channel::Channel> channel(std::string_view name) {
        return registry_.child(channel::Registry::kRootId, name);
    }
    void push(std::string_view name, std::string_view body) {
        queue::Batch batch;
        batch.add(messages_.make({}, std::as_bytes(std::span(body))));
        ASSERT_EQ(channel(name)->try_push(batch, queue::Via::kOther, false, nullptr),
                  channel::Push::kQueued);
    }
    queue::MessageRef take(std::string_view name) {
        queue::MessageRef message;
        channel(name)->try_take(message);
        return message;
    }
    std::uint64_t charged(access::Resource resource) {
        return ledger_.account(::getuid()).used(resource);
    }
    bool wait_until(const std::function<bool()>& condition) const {
        const auto deadline = std::chrono::steady_clock::now() + kPatience;
        while (!condition()) {
            if (std::chrono::steady_clock::now() > deadline) return false;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        return true;
    }
    static std::size_t open_files() {
        std::size_t count = 0;
        for ([[maybe_unused]] auto& each : std::filesystem::directory_iterator("/proc/self/fd"))
            ++count;
        return count;
    }

    std::string directory_;
    KeptLog log_;
    SystemClock clock_;
    TimerQueue timers_;
    queue::MessagePool messages_;
    access::Ledger ledger_;
    payload::Budget budget_{clock_, payload::available_memory};
    payload::Store store_{ledger_, budget_};
    Executor worker_{"test-worker", {}};
    channel::Environment environment_{clock_, timers_, messages_, ledger_};
    channel::Registry registry_{environment_, channel::Settings{}, 0};
    tree::Tree tree_{registry_, ledger_, store_, worker_, log_, tree::System{}};
    tree::Exchange exchange_{tree_, store_, worker_};
    boost::asio::io_context loop_{1};
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{
        loop_.get_executor()};
    std::unique_ptr<Server> server_;
    std::thread thread_;
};

}  // namespace ipcfs::control
