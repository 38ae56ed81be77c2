# The checks of an administrator after the installation in the README.
main_pid() { systemctl show --property MainPID --value lvs-agent; }

systemctl is-active lvs-agent
grep -E '^(CapEff|NoNewPrivs|Seccomp):' "/proc/$(main_pid)/status"
lvs-agent show
ip -oneline addr show dev eth0 | grep -o '192.168.220.100/32'
ip -oneline addr show dev lo | grep -o '192.168.221.100/32'
ip link show type ipip | grep -o 'lvs-ipip-[0-9a-f]*'
ip rule | grep -c '^7600:'
iptables-legacy -t nat -S LVS-OPERATOR | grep -c 'ctorigdst 192.168.220.100 .*MASQUERADE'

echo "a file that changes"
sed -i 's/weight: 3/weight: 4/' /etc/lvs-agent/web.yaml
systemctl reload lvs-agent
until lvs-agent show | grep 'weight 4'; do :; done

echo "a kill"
killed=$(main_pid)
kill -KILL "$killed"
until systemctl is-active --quiet lvs-agent && test "$(main_pid)" != "$killed"; do :; done
lvs-agent show | grep -c '^  TCP'

echo "a stop"
systemctl stop lvs-agent
ipvsadm -Sn
ip -oneline addr show dev eth0 | grep -o '192.168.220.100/32'

echo "a cleanup"
lvs-agent cleanup > /dev/null
ipvsadm -Sn
ip -oneline addr | grep -E '192.168.22[01].100/|lvs-' || true
echo "the end"
