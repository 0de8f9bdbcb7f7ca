// Directories of fixed names, payloads and regions. Any thread.
#include <charconv>
#include <sys/stat.h>

#include <tree/directory.hpp>
#include <tree/memory_file.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

namespace {

class PayloadDirectory final : public Directory {
public:
    using Directory::Directory;

    Answer<NodeId> find(NodeId at, std::string_view name) override {
        std::uint64_t id = 0;
        const char* const end = name.data() + name.size();
        const auto [after, error] = std::from_chars(name.data(), end, id);
        const bool is_number = error == std::errc() && after == end && name.front() != '0';
        const auto payload = is_number ? tree_.payloads().find(id) : nullptr;
        const bool is_listed =
            payload && payload->channel == at.channel &&
            (payload->kind == PayloadKind::kSealed || payload->kind == PayloadKind::kPooled);
        if (!is_listed) return Directory::find(at, name);
        return NodeId{id, Kind::kPayload};
    }
    void list(NodeId at, std::uint64_t after, const Visit& visit) const override {
        for (std::uint64_t id : tree_.payloads().list(at.channel, after)) {
            if (!visit(id, std::to_string(id), {id, Kind::kPayload})) break;
        }
    }
    bool may_be_cached() const noexcept override { return false; }

    std::uint64_t channel_of(std::uint64_t id) const override {
        const auto payload = tree_.payloads().find(id);
        return payload ? payload->channel : UINT64_MAX;
    }
    Result<void> describe(std::uint64_t id, NodeInfo& info) const override {
        const auto payload = tree_.payloads().find(id);
        if (!payload) return Fault{ESTALE, "the payload is gone"};
        info.size = payload->size;
        return {};
    }
};

class ShareDirectory final : public Directory {
public:
    using Directory::Directory;

    Answer<NodeId> find(NodeId at, std::string_view name) override {
        const auto region = tree_.shares().find(at.channel, name);
        if (!region) return Directory::find(at, name);
        return NodeId{region->id, Kind::kRegion};
    }
    Result<NodeId> create(NodeId at, std::string_view name, const NewChannel& made) override {
        auto attributes = tree_.attributes_below(at, made, S_IFREG);
        if (!attributes) return attributes.error();
        auto region = tree_.shares().create(at.channel, name, std::move(*attributes));
        if (!region) return region.error();
        return NodeId{(*region)->id, Kind::kRegion};
    }
    Answer<void> unlink(NodeId at, std::string_view name) override {
        return tree_.shares().unlink(at.channel, name);
    }
    Answer<void> rename(NodeId at, std::string_view name, NodeId to, std::string_view to_name,
                        bool keep) override {
        if (at != to) return Directory::rename(at, name, to, to_name, keep);
        return tree_.shares().rename(at.channel, name, to_name, keep);
    }
    void list(NodeId at, std::uint64_t after, const Visit& visit) const override {
        tree_.shares().list(at.channel, after, [&](std::uint64_t id, std::string_view name) {
            return visit(id, name, {id, Kind::kRegion});
        });
    }
    bool may_be_cached() const noexcept override { return false; }

    std::uint64_t channel_of(std::uint64_t id) const override {
        const auto region = tree_.shares().find(id);
        return region ? region->channel : UINT64_MAX;
    }
    Result<void> describe(std::uint64_t id, NodeInfo& info) const override {
        const auto region = tree_.shares().find(id);
        if (!region) return Fault{ESTALE, "the region is gone"};
        info.size = region->size();
        info.accessed = info.modified = region->modified();
        return {};
    }
    Result<void> resize(std::uint64_t id, std::uint64_t size) override {
        const auto region = tree_.shares().find(id);
        const auto channel = region ? tree_.registry().find(region->channel) : nullptr;
        if (!channel || channel->removed()) return Fault{ESTALE, "the region is gone"};
        return resize_region(tree_.shares(), *region, *channel, size);
    }
    bool read(std::uint64_t id, const std::function<void(const Attributes&)>& use) const override {
        return tree_.shares().read(id, use);
    }
    bool change(std::uint64_t id, const std::function<void(Attributes&)>& use) override {
        return tree_.shares().change(id, use);
    }
};

}  // namespace

std::shared_ptr<Directory> make_fixed_directory(Tree& tree) {
    return std::make_shared<Directory>(tree);
}
std::shared_ptr<Directory> make_payload_directory(Tree& tree) {
    return std::make_shared<PayloadDirectory>(tree);
}
std::shared_ptr<Directory> make_share_directory(Tree& tree) {
    return std::make_shared<ShareDirectory>(tree);
}

}  // namespace ipcfs::tree
