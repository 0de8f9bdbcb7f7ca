// Messages and their pool.
#include <cstring>
#include <malloc.h>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <queue/priority_queue.hpp>

namespace ipcfs::queue {
namespace {

std::span<const std::byte> bytes(std::string_view text) {
    return std::as_bytes(std::span(text));
}
std::string text(std::span<const std::byte> data) {
    return {reinterpret_cast<const char*>(data.data()), data.size()};
}

TEST(MessagePool, CopiesExtensionsAndBodyOfAnySize) {
    MessagePool pool;
    for (std::size_t size : {0U, 1U, 256U, 304U, 305U, 4096U, 1044480U}) {
        const std::string body(size, 'b');
        MessageRef message = pool.make(bytes("0123456789abcdef"), bytes(body));
        ASSERT_TRUE(message);
        EXPECT_EQ(text(message->extensions()), "0123456789abcdef");
        EXPECT_EQ(text(message->body()), body);
        EXPECT_EQ(text(message->content()), "0123456789abcdef" + body);
        EXPECT_EQ(message->size(), 16 + size);
    }
}

TEST(MessagePool, HandsARecycledMessageOutAsNew) {
    MessagePool pool;
    access::Ledger ledger;
    auto& account = ledger.account(1);
    MessageRef first = pool.make(bytes("12345678"), bytes(std::string(1000, 'x')));
    const Message* address = first.get();
    first->envelope.priority = 3;
    first->envelope.redelivered = true;
    first->envelope.expires = 5;
    first->charged_bytes = *access::Charge::take(account, access::Resource::kBytes, 1000);
    first.reset();
    EXPECT_EQ(account.used(access::Resource::kBytes), 0U);
    MessageRef again = pool.make({}, bytes("y"));
    EXPECT_EQ(again.get(), address);
    EXPECT_EQ(again->envelope.priority, kNormal);
    EXPECT_FALSE(again->envelope.redelivered);
    EXPECT_EQ(again->envelope.expires, kNever);
    EXPECT_EQ(text(again->content()), "y");
    EXPECT_EQ(again->writer, nullptr);
}

TEST(MessagePool, KeepsNoMoreThanItIsTold) {
    MessagePool pool(2);
    std::vector<MessageRef> held;
    for (int i = 0; i < 8; ++i) held.push_back(pool.make({}, bytes("x")));
    held.clear();  // six are freed: the address sanitizer's leak check sees to it
    EXPECT_TRUE(pool.make({}, bytes("y")));
}

TEST(MessagePool, AMessageLivesAsLongAsAnybodyHoldsIt) {
    MessagePool pool;
    MessageRef one = pool.make({}, bytes("kept"));
    MessageRef two = one;
    one.reset();
    MessageRef other = pool.make({}, bytes("other"));
    EXPECT_NE(other.get(), two.get());
    EXPECT_EQ(text(two->body()), "kept");
}

TEST(MessagePool, AShareHasTheContentOfItsOriginAndTheRestOfItsOwn) {
    MessagePool pool;
    access::Ledger ledger;
    auto& account = ledger.account(1);
    MessageRef origin = pool.make(bytes("01234567"), bytes(std::string(5000, 'o')));
    origin->envelope.priority = 7;
    origin->envelope.sequence = 12;
    origin->envelope.redelivered = true;
    origin->envelope.deliveries = 3;
    origin->charged_bytes = *access::Charge::take(account, access::Resource::kBytes, 5008);
    MessageRef share = pool.share(origin);
    ASSERT_TRUE(share);
    EXPECT_EQ(share->content().data(), origin->content().data());
    EXPECT_EQ(share->size(), 5008U);
    EXPECT_EQ(text(share->extensions()), "01234567");
    EXPECT_EQ(share->envelope.priority, 7);
    EXPECT_EQ(share->envelope.sequence, 12U);
    EXPECT_FALSE(share->envelope.redelivered);
    EXPECT_EQ(share->envelope.deliveries, 0U);
    EXPECT_EQ(share->charged_bytes.amount(), 0U);
    EXPECT_EQ(share->origin(), origin.get());
    EXPECT_EQ(origin->origin(), nullptr);
    share->envelope.priority = 9;
    EXPECT_EQ(origin->envelope.priority, 7);
}

TEST(MessagePool, AnOriginLivesAsLongAsItsLastShare) {
    MessagePool pool;
    access::Ledger ledger;
    auto& account = ledger.account(1);
    MessageRef origin = pool.make({}, bytes("kept"));
    const Message* address = origin.get();
    origin->charged_message = *access::Charge::take(account, access::Resource::kMessages, 1);
    MessageRef first = pool.share(origin);
    MessageRef second = pool.share(first);  // of the origin, too
    EXPECT_EQ(second->origin(), address);
    origin.reset();
    first.reset();
    EXPECT_EQ(text(second->body()), "kept");
    EXPECT_EQ(account.used(access::Resource::kMessages), 1U);
    second.reset();
    EXPECT_EQ(account.used(access::Resource::kMessages), 0U);
    EXPECT_EQ(pool.make({}, bytes("again")).get(), address);
}

TEST(MessagePool, AShareTakesLittleMemory) {
    MessagePool pool;
    MessageRef origin = pool.make({}, bytes(std::string(100, 'x')));
    MessageRef share = pool.share(origin);
    EXPECT_LT(::malloc_usable_size(share.get()), sizeof(Message) + 64);
    EXPECT_GE(::malloc_usable_size(origin.get()), sizeof(Message) + 256);
}

TEST(MessagePoolThreads, MessagesMadeByOneThreadAndFreedByAnotherKeepTheirContents) {
    MessagePool pool(64);
    Guarded<std::vector<MessageRef>> shelf;
    std::atomic<int> left{4}, read{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 2000; ++i) {
                const auto size = static_cast<std::size_t>(1 + i % 600);
                MessageRef made =
                    pool.make({}, bytes(std::string(size, static_cast<char>('a' + t))));
                shelf.with([&](auto& all) { all.push_back(std::move(made)); });
            }
            --left;
        });
        threads.emplace_back([&] {
            for (;;) {
                const bool last = left == 0;
                MessageRef taken = shelf.with([](auto& all) -> MessageRef {
                    if (all.empty()) return nullptr;
                    MessageRef one = std::move(all.back());
                    all.pop_back();
                    return one;
                });
                if (!taken) {
                    if (last) return;
                    std::this_thread::yield();
                    continue;
                }
                const std::string body = text(taken->body());
                if (body != std::string(body.size(), body[0])) ADD_FAILURE() << "torn";
                ++read;
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(read, 8000);
}

TEST(PriorityQueue, CountsMessagesAndBytesThroughEveryWayOut) {
    MessagePool pool;
    PriorityQueue queue;
    auto add = [&](std::string_view body, std::uint8_t priority) {
        MessageRef made = pool.make({}, bytes(body));
        made->envelope.priority = priority;
        Message* raw = made.get();
        queue.push_back(std::move(made));
        return raw;
    };
    add("12345", 9);
    Message* middle = add("123", 9);
    add("1", 200);
    EXPECT_EQ(queue.size(), 3U);
    EXPECT_EQ(queue.bytes(), 9U);
    queue.remove(*middle);
    EXPECT_EQ(queue.bytes(), 6U);
    EXPECT_EQ(queue.front(Schedule::kStrict)->size(), 1U);
    EXPECT_EQ(queue.pop(Schedule::kStrict)->size(), 1U);
    EXPECT_EQ(queue.victim(8), nullptr);
    ASSERT_NE(queue.victim(9), nullptr);
    EXPECT_EQ(queue.pop(Schedule::kFair)->size(), 5U);
    EXPECT_TRUE(queue.empty());
    EXPECT_EQ(queue.bytes(), 0U);
    EXPECT_EQ(queue.pop(Schedule::kStrict), nullptr);
    EXPECT_EQ(queue.oldest(), kNever);
}

TEST(PriorityQueue, FreesWhatIsLeftInIt) {
    MessagePool pool;
    access::Ledger ledger;
    auto& account = ledger.account(1);
    {
        PriorityQueue queue;
        MessageRef made = pool.make({}, bytes("x"));
        made->charged_message = *access::Charge::take(account, access::Resource::kMessages, 1);
        queue.push_back(std::move(made));
    }
    EXPECT_EQ(account.used(access::Resource::kMessages), 0U);
}

}  // namespace
}  // namespace ipcfs::queue
