# A thin front: the work is done by cargo and by the scripts in .ci.

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
# Where systemd looks for what an administrator adds; the Debian package has its own places.
UNITDIR ?= /etc/systemd/system
SYSUSERSDIR ?= /etc/sysusers.d
TMPFILESDIR ?= /etc/tmpfiles.d
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
# Where Wireshark looks for programs that capture for it; nothing is installed if this is empty.
EXTCAPDIR ?= $(shell sh packaging/extcap-dir.sh)
# mount(8) looks for its helpers here, whatever the prefix is.
HELPERDIR ?= /sbin

CARGO ?= cargo
INSTALL ?= install
RELEASE = $${CARGO_TARGET_DIR:-target}/release
MAN1 = man/pcapfs.1
MAN5 = man/pcapfs.toml.5
MAN7 = man/pcapfs.7
MAN8 = man/mount.pcapfs.8

all: build

build:
	$(CARGO) build --release --locked

# make up ON=eth0 FILTER='tcp port 80'
up:
	sh .ci/up "$(ON)" "$(FILTER)"

test:
	sh .ci/test

# The page of `pcapfs web`; its built files are committed. Needs node and npm.
web:
	cd pcapfs/web && npm ci --ignore-scripts --no-audit --no-fund && npm run build

# As root; prints its tables, and compares with tcpdump, dumpcap, dd, tshark and tcpflow in the
# same run.
bench: build
	sh .ci/packages build test bench
	$(CARGO) bench --locked -p pcapfs-tests --bench spine -- --markdown "$(CURDIR)/docs/benchmarks.md"
	$(CARGO) bench --locked -p pcapfs-tests --bench flows -- --markdown "$(CURDIR)/docs/benchmarks.md"
	$(CARGO) bench --locked -p pcapfs-tests --bench control -- --markdown "$(CURDIR)/docs/benchmarks.md"
	$(CARGO) bench --locked -p protocol --bench decode
	$(CARGO) bench --locked -p capture --bench savefile
	$(CARGO) bench --locked -p capture --bench workers

# Captures of other projects and generated ones, beside the truth; tests/src/require.rs says where
# they are looked for.
conformance: build
	sh .ci/packages build test bench
	$(CARGO) bench --locked -p pcapfs-tests --bench conformance -- --markdown "$(CURDIR)/docs/conformance.md"

DEB_VERSION = 3.8.0
TOOLS = $(CURDIR)/target/tools

# Unoptimised: it runs for a second, and builds in a third of the time.
$(TOOLS)/bin/cargo-deb:
	CARGO_TARGET_DIR=$(TOOLS)/build CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) install cargo-deb \
	    --version $(DEB_VERSION) --locked --debug --quiet --root $(TOOLS)

# A Debian package, in target/debian.
deb: build $(TOOLS)/bin/cargo-deb
	mkdir -p "$(RELEASE)/completions"
	"$(RELEASE)/pcapfs" completions bash > "$(RELEASE)/completions/pcapfs"
	"$(RELEASE)/pcapfs" completions zsh > "$(RELEASE)/completions/_pcapfs"
	"$(RELEASE)/pcapfs" completions fish > "$(RELEASE)/completions/pcapfs.fish"
	# The folder of Debian's Wireshark has the name of the architecture in it.
	rm -rf "$(RELEASE)/extcap"
	mkdir -p "$(RELEASE)/extcap/$$(gcc -print-multiarch)/wireshark/extcap"
	ln -s /usr/bin/pcapfs "$(RELEASE)/extcap/$$(gcc -print-multiarch)/wireshark/extcap/pcapfs"
	PATH="$(TOOLS)/bin:$$PATH" $(CARGO) deb --locked --no-build --strip -p pcapfs -o "$(CURDIR)/target/debian/"

# As root: installs the package on a Debian 12 made for the purpose, and removes it.
deb-test: deb
	sh packaging/try-deb.sh "$$(ls -t target/debian/pcapfs_*.deb | head -n 1)"

# As root: builds the image around the program, and runs it as docs/containers.md says. With
# PROGRAM=target/debug/pcapfs it needs no optimised build.
PROGRAM ?= $(RELEASE)/pcapfs
container-test:
	sh .ci/packages container
	@test -x "$(PROGRAM)" || { echo "run make first, or name a PROGRAM"; exit 1; }
	sh packaging/container/try.sh "$(PROGRAM)"

# Builds nothing, so that it can run as root after `make`.
install:
	@test -x "$(RELEASE)/pcapfs" || { echo "run make first"; exit 1; }
	$(INSTALL) -D -m 755 "$(RELEASE)/pcapfs" "$(DESTDIR)$(BINDIR)/pcapfs"
	$(INSTALL) -D -m 755 "$(RELEASE)/mount-pcapfs" "$(DESTDIR)$(HELPERDIR)/mount.pcapfs"
	ln -sf mount.pcapfs "$(DESTDIR)$(HELPERDIR)/mount.fuse.pcapfs"
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(MANDIR)/man1" $(MAN1)
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(MANDIR)/man5" $(MAN5)
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(MANDIR)/man7" $(MAN7)
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(MANDIR)/man8" $(MAN8)
	$(INSTALL) -D -m 644 packaging/pcapfs.sysusers "$(DESTDIR)$(SYSUSERSDIR)/pcapfs.conf"
	$(INSTALL) -D -m 644 packaging/pcapfs.tmpfiles "$(DESTDIR)$(TMPFILESDIR)/pcapfs.conf"
	$(INSTALL) -D -m 644 -t "$(DESTDIR)$(UNITDIR)" packaging/pcapfs.service packaging/pcapfs-web.service \
		packaging/pcapfs-publish@.service packaging/pcapfs-watch@.service
	$(INSTALL) -d -m 755 "$(DESTDIR)$(BASHDIR)" "$(DESTDIR)$(ZSHDIR)" "$(DESTDIR)$(FISHDIR)"
	"$(RELEASE)/pcapfs" completions bash > "$(DESTDIR)$(BASHDIR)/pcapfs"
	"$(RELEASE)/pcapfs" completions zsh > "$(DESTDIR)$(ZSHDIR)/_pcapfs"
	"$(RELEASE)/pcapfs" completions fish > "$(DESTDIR)$(FISHDIR)/pcapfs.fish"
	extcap="$(EXTCAPDIR)"; [ -z "$$extcap" ] || { \
	    $(INSTALL) -d -m 755 "$(DESTDIR)$$extcap" && \
	    ln -sf "$(BINDIR)/pcapfs" "$(DESTDIR)$$extcap/pcapfs"; }
	# So that apropos(1) finds the pages; a package does it by itself.
	if [ -z "$(DESTDIR)" ] && command -v mandb >/dev/null; then mandb --quiet || true; fi

uninstall:
	rm -f "$(DESTDIR)$(BINDIR)/pcapfs"
	rm -f "$(DESTDIR)$(HELPERDIR)/mount.pcapfs" "$(DESTDIR)$(HELPERDIR)/mount.fuse.pcapfs"
	rm -f "$(DESTDIR)$(MANDIR)/man1/pcapfs.1" "$(DESTDIR)$(MANDIR)/man7/pcapfs.7"
	rm -f "$(DESTDIR)$(SYSUSERSDIR)/pcapfs.conf" "$(DESTDIR)$(TMPFILESDIR)/pcapfs.conf"
	rm -f "$(DESTDIR)$(UNITDIR)/pcapfs.service" "$(DESTDIR)$(UNITDIR)/pcapfs-web.service" \
		"$(DESTDIR)$(UNITDIR)/pcapfs-publish@.service" \
		"$(DESTDIR)$(UNITDIR)/pcapfs-watch@.service"
	rm -f "$(DESTDIR)$(MANDIR)/man5/pcapfs.toml.5" "$(DESTDIR)$(MANDIR)/man8/mount.pcapfs.8"
	rm -f "$(DESTDIR)$(BASHDIR)/pcapfs" "$(DESTDIR)$(ZSHDIR)/_pcapfs"
	rm -f "$(DESTDIR)$(FISHDIR)/pcapfs.fish"
	extcap="$(EXTCAPDIR)"; [ -z "$$extcap" ] || rm -f "$(DESTDIR)$$extcap/pcapfs"

clean:
	$(CARGO) clean

.PHONY: all build up test web bench conformance deb deb-test container-test install uninstall clean
