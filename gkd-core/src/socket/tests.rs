use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[tokio::test]
async fn dials_from_the_address_that_it_is_bound_to() {
    let listener = listen(any(), BACKLOG).unwrap();
    let to = listener.local_addr().unwrap();
    let bind = "127.0.0.2".parse().unwrap();
    let options = SocketOptions::default();
    let (dialled, accepted) = tokio::join!(dial(to, Some(&bind), &options), listener.accept());
    assert_eq!(accepted.unwrap().1.ip(), "127.0.0.2".parse::<std::net::IpAddr>().unwrap());
    assert!(SockRef::from(&dialled.unwrap()).tcp_nodelay().unwrap());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn dials_from_an_interface() {
    let listener = listen(any(), BACKLOG).unwrap();
    let to = listener.local_addr().unwrap();
    let bind = Bind::Interface("lo".into());
    let options = SocketOptions::default();
    let (dialled, accepted) = tokio::join!(dial(to, Some(&bind), &options), listener.accept());
    assert!(dialled.is_ok() && accepted.is_ok());
    let missing = Bind::Interface("gkd-none0".into());
    let error = dial(to, Some(&missing), &options).await.unwrap_err();
    assert!(error.to_string().contains("no such interface"), "{error}");
}

#[tokio::test]
async fn a_bind_of_the_other_family_or_of_another_machine_is_an_error_that_says_so() {
    let to = any();
    for (bind, says) in [("::1", "one is IPv4, the other IPv6"), ("192.0.2.1", "does this machine have it?")]
    {
        let error = dial(to, Some(&bind.parse().unwrap()), &SocketOptions::default()).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let listener = listen(any(), BACKLOG).unwrap();
    let address = listener.local_addr().unwrap();
    let error = listen(address, BACKLOG).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(error.to_string().contains("take another port"), "{error}");
}

#[tokio::test]
async fn both_wildcards_listen_on_one_port() {
    // A machine without IPv6 has nothing to show here.
    let Ok(six) = listen("[::]:0".parse().unwrap(), BACKLOG) else { return };
    let port = six.local_addr().unwrap().port();
    listen(SocketAddr::from(([0, 0, 0, 0], port)), BACKLOG).unwrap();
}

/// Where the system's own is another than `bbr` there is nothing to tell apart.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_stays_on_this_host_is_not_paced_unless_it_was_asked_for_by_name() {
    let own = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
    let own = own.trim_end();
    let unpaced = if own == "bbr" { "reno" } else { own };
    for (congestion, local) in
        [(Congestion::Auto, unpaced), (Congestion::System, own), (Congestion::Name(own.to_owned()), own)]
    {
        let options = SocketOptions { congestion: congestion.clone(), ..SocketOptions::default() };
        let listener = listen(any(), BACKLOG).unwrap();
        options.apply_to_listener(&listener);
        let (dialled, accepted) =
            tokio::join!(dial(listener.local_addr().unwrap(), None, &options), listener.accept());
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap().0);
        options.apply(&accepted).unwrap();
        for tcp in [dialled, accepted] {
            let name = SockRef::from(&tcp).tcp_congestion().unwrap();
            let name = String::from_utf8(name).unwrap();
            assert_eq!(name.trim_end_matches('\0'), local, "{congestion}");
        }
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernel_tells_the_round_trip_and_what_is_unsent() {
    let listener = listen(any(), BACKLOG).unwrap();
    let to = listener.local_addr().unwrap();
    let options = SocketOptions { unsent_low_water: 16 * 1024, ..SocketOptions::default() };
    let (dialled, accepted) = tokio::join!(dial(to, None, &options), listener.accept());
    let (mut near, mut far) = (dialled.unwrap(), accepted.unwrap().0);
    options.apply(&far).unwrap();
    near.write_all(&[1; 1000]).await.unwrap();
    far.read_exact(&mut [0; 1000]).await.unwrap();
    let mut watch = Watch::new(&near);
    let quiet = watch.sample(&near);
    assert!(quiet.round_trip.is_some() && quiet.unsent == Some(0), "{quiet:?}");
    assert!(!quiet.recovering);
    set_unsent_low_water(&near, 32 * 1024);
    assert_eq!(SockRef::from(&near).tcp_notsent_lowat().unwrap(), 32 * 1024);
    // Nobody reads: what does not fit the other end's buffer stays unsent.
    let block = vec![0; 64 * 1024];
    let mut unsent = 0;
    for _ in 0..10_000 {
        if near.try_write(&block).is_err() {
            break;
        }
        unsent = watch.sample(&near).unsent.unwrap_or_default();
    }
    assert!(unsent > 0);
}

#[test]
fn the_systems_congestion_control_is_to_be_had_by_name_and_nonsense_is_not() {
    assert_eq!(Congestion::Auto.check(), Ok(()));
    assert_eq!(Congestion::System.check(), Ok(()));
    let nonsense = Congestion::Name("nonsense".into()).check().unwrap_err();
    assert!(
        nonsense.to_string().starts_with("the congestion control nonsense is not to be had"),
        "{nonsense}"
    );
    #[cfg(target_os = "linux")]
    {
        let offered = "/proc/sys/net/ipv4/tcp_available_congestion_control";
        let offered = std::fs::read_to_string(offered).unwrap();
        let first = offered.split_whitespace().next().unwrap();
        assert!(nonsense.to_string().contains(first), "{nonsense}");
        let current = "/proc/sys/net/ipv4/tcp_congestion_control";
        let current = std::fs::read_to_string(current).unwrap();
        assert_eq!(Congestion::Name(current.trim().into()).check(), Ok(()));
    }
}

#[test]
fn congestion_and_bind_are_read_from_their_text() {
    for text in ["auto", "system", "bbr", "cubic"] {
        assert_eq!(text.parse::<Congestion>().unwrap().to_string(), text);
    }
    for text in ["", "a name", "sixteen_letters_"] {
        assert!(text.parse::<Congestion>().is_err(), "{text:?}");
    }
    assert_eq!("192.0.2.7".parse(), Ok(Bind::Address("192.0.2.7".parse().unwrap())));
    assert_eq!("[2001:db8::7]".parse(), Ok(Bind::Address("2001:db8::7".parse().unwrap())));
    assert_eq!("wlan0".parse(), Ok(Bind::Interface("wlan0".into())));
    for text in ["", "192.0.2", "192.0.2.300", "eth0 ", "a/b", "2001:db8::g", "an-interface-name-too-long"] {
        assert!(text.parse::<Bind>().is_err(), "{text:?}");
    }
}
